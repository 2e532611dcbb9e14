"""Keys of LLaMA-Factory that no setting stands for: nothing to do about them, or what to do instead."""

from lib.importing.draft import Sayings

NOT_NEEDED: Sayings = (
    (
        "do_train do_eval overwrite_output_dir overwrite_cache tokenized_path "
        "preprocessing_batch_size data_shared_file_system cache_dir media_dir predict_with_generate",
        "the command says what is done; large data sets are prepared once and kept (docs/preparation.md)",
    ),
    (
        "plot_loss include_num_input_tokens_seen include_effective_tokens_per_second print_param_status",
        "curves and counts are in report.html and MLflow",
    ),
    (
        "ddp_* dataloader_* low_cpu_mem_usage use_reentrant_gc use_fast_tokenizer "
        "remove_unused_columns local_rank quantization_device_map",
        "processes and loading are arranged by the command",
    ),
    (
        "enable_liger_kernel use_unsloth use_unsloth_gc use_v1_kernels upcast_lmhead_output "
        "moe_aux_loss_coef",
        "how it is computed is chosen here; routers stay as they are",
    ),
    (
        "upcast_layernorm",
        "norms are computed in fp32 over four-bit weights",
    ),
    (
        "load_best_model_at_end greater_is_better save_only_model save_safetensors",
        "the best checkpoint by SFT_BEST_METRIC is kept, as safetensors",
    ),
    (
        "per_device_eval_batch_size_*",
        "one size for all",
    ),
    (
        "hf_hub_token",
        "HF_TOKEN in the environment, or `hf auth login`",
    ),
    (
        "ignore_pad_token_for_loss tf32",
        "as here",
    ),
)
ADVICE: Sayings = (
    (
        "adapter_name_or_path adapter_folder create_new_adapter",
        "a trained adapter is an earlier stage here: merge it into the base first, or train it as stage 1",
    ),
    (
        "additional_target resize_vocab add_tokens add_special_tokens new_special_tokens_config "
        "init_special_tokens",
        "the tokenizer stays as the base has it, and no layer is trained whole: prepare the base model first",
    ),
    (
        "use_dora pissa_* loraplus_* use_galore galore_* use_apollo apollo_* use_badam badam_* "
        "use_adam_mini use_muon use_llama_pro use_dft_loss mixture_of_depths rope_scaling "
        "shift_attn split_special_tokens freeze_trainable_* freeze_extra_modules",
        "plain LoRA with the optimizers of SFT_OPTIM is what there is",
    ),
    (
        "train_on_prompt",
        "prompts are never learned; rows of plain `text` are learned whole",
    ),
    (
        "report_to use_swanlab swanlab_* run_name",
        "MLflow keeps the runs; SFT_TENSORBOARD=1 adds TensorBoard's files",
    ),
    (
        "streaming buffer_size",
        "SFT_DATASET_STREAMING=1 reads data sets of the Hub row by row (docs/preparation.md)",
    ),
    (
        "tool_format",
        "tool calls are not trained",
    ),
    (
        "default_system",
        "write it into the rows as a system message, or into a template of your own",
    ),
    (
        "enable_thinking reasoning_effort preserve_thinking",
        "the tokenizer's template decides about <think>: look at --plan --show-mask 3, or use a "
        "template of your own",
    ),
    (
        "compute_accuracy eval_num_beams eval_on_each_dataset",
        "answers are generated and scored: SFT_GEN_EVAL_SAMPLES, SFT_GEN_EVAL_TASK",
    ),
    (
        "disable_shuffling",
        "SFT_ORDER=length or complexity; the order of the file is not kept",
    ),
    (
        "packing_strategy packing_*",
        "whole rows are packed by length",
    ),
    (
        "trust_remote_code",
        "code from the Hub is never run: the model has to be one that transformers knows",
    ),
    (
        "push_to_hub hub_* export_*",
        "nothing is uploaded: the stage's folder and what export.py writes are Hub folders",
    ),
    (
        "fsdp fsdp_* ray_* use_mca",
        "DeepSpeed ZeRO-2 or plain data parallel, on one machine or several (docs/scaling.md)",
    ),
    (
        "adam_* optim_args label_smoothing_factor",
        "the optimizer's other values are those of transformers",
    ),
    (
        "resume_from_checkpoint",
        "the same command goes on where it was interrupted",
    ),
    (
        "pure_bf16 fp8 fp8_*",
        "the base in bf16, fp32 or nf4, the adapter trained in fp32",
    ),
    (
        "torch_compile*",
        "not compiled",
    ),
    (
        "image_* video_* audio_* use_audio_in_video crop_to_patches freeze_*",
        "only text is trained",
    ),
)
