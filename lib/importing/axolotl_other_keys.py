"""Keys of Axolotl that no setting stands for: nothing to do about them, or what to do instead."""

from lib.importing.draft import Sayings

NOT_NEEDED: Sayings = (
    (
        "dataset_prepared_path dataset_keep_in_memory shuffle_merged_datasets skip_prepare_dataset "
        "preprocess_iterable",
        "rows are shuffled by SFT_SEED; large data sets are prepared once and kept (docs/preparation.md)",
    ),
    (
        "pad_to_sequence_len sample_packing_* eval_sample_packing multipack_real_batches batch_flattening",
        "batches hold no padding (docs/batches.md)",
    ),
    (
        "model_type tokenizer_type tokenizer_use_fast tokenizer_legacy is_*_derived_model "
        "base_model_config tokenizer_config",
        "read from the model's own files",
    ),
    (
        "strict",
        "unknown keys are always errors here; SFT_STRICT says something else",
    ),
    (
        "tf32 gradient_checkpointing_kwargs lora_*_kernel flash_attn_* unsloth_* liger_* "
        "low_cpu_mem_usage lora_on_cpu experts_implementation scattermoe* use_kernels",
        "how it is computed is chosen here, with kernels of our own for experts",
    ),
    (
        "ddp ddp_* local_rank world_size device device_map accelerator_config dataloader_* "
        "remove_unused_columns gc_steps use_reentrant qlora_sharded_model_loading",
        "processes and loading are arranged by the command",
    ),
    (
        "load_best_model_at_end greater_is_better save_safetensors save_only_model save_first_step",
        "the best checkpoint by SFT_BEST_METRIC is kept, as safetensors",
    ),
    (
        "auto_resume_from_checkpoints",
        "the same command goes on where it was interrupted",
    ),
    (
        "hf_use_auth_token",
        "HF_TOKEN in the environment, or `hf auth login`",
    ),
    (
        "use_mlflow",
        "runs are always kept in MLflow",
    ),
)
ADVICE: Sayings = (
    (
        "merge_lora merge_method",
        "export.py --stage 1 --to DIR writes the merged model",
    ),
    (
        "wandb_* use_wandb comet_* use_comet gradio_* trackio_*",
        "MLflow keeps the runs: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME",
    ),
    (
        "mlflow_run_name hf_mlflow_log_artifacts",
        "a run is called by its stage; files stay in the stage's folder",
    ),
    (
        "lora_modules_to_save",
        "no layer is trained whole: put lm_head or embed_tokens aside, or train it elsewhere first",
    ),
    (
        "special_tokens eot_tokens",
        "padding and ends are those of the base's tokenizer and of the template (see --show-mask); "
        "a token that is new has to be added to the base model first",
    ),
    (
        "tokens added_tokens_overrides resize_token_embeddings*",
        "the tokenizer stays as the base has it: add tokens to the base model first and save it",
    ),
    (
        "peft_use_dora peft_init_lora_weights peft loraplus_* relora* peft_layer* "
        "lora_fan_in_fan_out lora_alpha_pattern",
        "plain LoRA on all layers is what there is",
    ),
    (
        "lora_model_dir",
        "a trained adapter is an earlier stage here: merge it into the base first, or train it as stage 1",
    ),
    (
        "hub_*",
        "nothing is uploaded: the stage's folder and what export.py writes are ordinary Hub folders",
    ),
    (
        "fsdp fsdp_* tensor_parallel_size context_parallel_size sequence_parallel_degree "
        "expert_parallel_size dp_shard_size dp_replicate_size",
        "DeepSpeed ZeRO-2 or plain data parallel, on one machine or several (docs/scaling.md)",
    ),
    (
        "plugins",
        "nothing is loaded into the trainer; metrics by generation are built in (docs/metrics.md)",
    ),
    (
        "trust_remote_code",
        "code from the Hub is never run: the model has to be one that transformers knows",
    ),
    (
        "curriculum_sampling",
        "SFT_ORDER=length or complexity (docs/mixing.md)",
    ),
    (
        "eval_table_size eval_max_new_tokens do_causal_lm_eval eval_causal_lm_metrics do_bench_eval bench_*",
        "answers are generated and scored: SFT_GEN_EVAL_SAMPLES, SFT_GEN_EVAL_TASK, "
        "SFT_GEN_EVAL_MAX_NEW_TOKENS",
    ),
    (
        "adam_* optim_args lr_groups embedding_lr*",
        "the optimizer's other values are those of transformers",
    ),
    (
        "default_system_message",
        "write it into the rows as a system message, or into a template of your own",
    ),
    (
        "train_on_inputs",
        "prompts are never learned; rows of plain `text` are learned whole",
    ),
    (
        "dataset_exact_deduplication",
        "SFT_AUDIT=remove with SFT_AUDIT_CHECKS=duplicate (docs/audit.md)",
    ),
    (
        "min_sample_len",
        "filter the file itself",
    ),
    (
        "streaming streaming_*",
        "SFT_DATASET_STREAMING=1 reads data sets of the Hub row by row (docs/preparation.md)",
    ),
    (
        "torch_compile torch_compile_*",
        "not compiled",
    ),
    (
        "resume_from_checkpoint",
        "the same command goes on from the last whole checkpoint of the stage's folder",
    ),
    (
        "loss_watchdog_*",
        "SFT_ON_SPIKE and SFT_ON_NAN say what becomes of such a step (docs/reliability.md)",
    ),
)
