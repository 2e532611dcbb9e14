from collections.abc import Callable
from typing import Any

import pytest

from lib.settings import InputError, MixEntry

CONFIG = """
base_model: Qwen/Qwen3-30B-A3B-Instruct-2507
adapter: lora
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj, gate_proj, up_proj, down_proj]
datasets:
  - path: data/ニュース.json
    ds_type: json
    type: chat_template
output_dir: ./outputs/抽出/
sequence_len: 1536
micro_batch_size: 1
gradient_accumulation_steps: 16
num_epochs: 1.5
learning_rate: 2e-4
lr_scheduler: cosine
cosine_min_lr_ratio: 0.05
warmup_ratio: 0.03
val_set_size: 0.1
"""
Import = Callable[..., Any]


def test_a_whole_configuration(imported: Import) -> None:
    stage = imported(
        CONFIG + "seed: 42\nbf16: true\nflash_attention: true\nsave_steps: 200\neval_steps: 200\n"
    )
    settings = stage.settings
    assert settings.strict
    assert settings.seed == 42
    assert str(settings.output) == "outputs/抽出"
    assert settings.data.mix == (MixEntry("data/ニュース.json", None),)
    assert settings.data.max_seq_len == 1536
    assert settings.data.val_ratio == 0.1
    assert not settings.data.mask_cot
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.dropout) == (16, 32, 0.05)
    assert settings.lora.target_modules == ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
    training = settings.training
    assert (training.per_device_train_bs, training.grad_accum, training.epochs) == (1, 16, 1.5)
    assert (training.lr, training.lr_scheduler, training.min_lr_ratio) == (2e-4, "cosine_with_min_lr", 0.05)
    assert (training.eval_steps, training.save_steps) == (200, 200)
    assert (settings.model.dtype, settings.model.attention) == ("bf16", "auto")
    assert stage.report.draft.not_carried == []
    assert "experts" in stage.differs("SFT_LORA_TARGET_MODULES")


def test_defaults_of_that_trainer_are_written_where_ours_differ(imported: Import) -> None:
    stage = imported("base_model: me/base\nadapter: lora\nlearning_rate: 1e-4\ndatasets: [{path: me/rows}]\n")
    training = stage.settings.training
    assert (training.per_device_train_bs, training.grad_accum) == (1, 1)
    assert stage.settings.data.max_seq_len == 512
    assert stage.settings.data.val_ratio == 0
    assert stage.settings.lora.dropout == 0
    assert stage.settings.output.name == "model-out"


@pytest.mark.parametrize(
    ("lines", "key", "value", "marked"),
    [
        ("load_in_4bit: true", "SFT_QUANTIZATION", "nf4-double", False),
        (
            "load_in_4bit: true\nbnb_config_kwargs: {bnb_4bit_use_double_quant: false}",
            "SFT_QUANTIZATION",
            "nf4",
            False,
        ),
        ("load_in_8bit: true", "SFT_QUANTIZATION", "none", True),
        (
            "metric_for_best_model: gen_offender_name_set_f1",
            "SFT_BEST_METRIC",
            "gen_offender_name_set_f1",
            True,
        ),
        ("metric_for_best_model: eval_loss", "SFT_BEST_METRIC", "eval_loss", False),
        ("ddp_timeout: 3600", "SFT_DDP_TIMEOUT", "3600", False),
        ("dataset_processes: 4", "SFT_DATASET_NUM_PROC", "4", False),
        ("metric_for_best_model: bleu", "SFT_BEST_METRIC", "eval_loss", True),
        ("lora_target_linear: true", "SFT_LORA_TARGET_MODULES", "all-linear", True),
        ("sample_packing: true", "SFT_PACKING", "1", False),
        ("optimizer: adamw_bnb_8bit", "SFT_OPTIM", "adamw_8bit", False),
        ("optimizer: muon", "SFT_OPTIM", "adamw_torch", True),
        ("attn_implementation: sdpa", "SFT_ATTENTION", "sdpa", False),
        ("xformers_attention: true", "SFT_ATTENTION", "auto", True),
        ("gradient_checkpointing: offload", "SFT_GRADIENT_CHECKPOINTING", "1", True),
        ("fp16: true", "SFT_DTYPE", "auto", True),
        ("deepspeed: deepspeed_configs/zero3.json", "SFT_ZERO_STAGE", "2", True),
        ("chat_template: chatml", "SFT_CHAT_TEMPLATE", "chatml", True),
        ("chat_template: llama3", "SFT_CHAT_TEMPLATE", "", True),
        ("chat_template_jinja: templates/own.jinja", "SFT_CHAT_TEMPLATE", "templates/own.jinja", False),
        ("peft_use_rslora: true", "SFT_LORA_ALPHA", "128", False),
        ("evals_per_epoch: 4", "SFT_EVAL_STEPS", "100", True),
        ("max_steps: 1000\neval_steps: 0.05", "SFT_EVAL_STEPS", "50", False),
        ("early_stopping_patience: 3", "SFT_EARLY_STOPPING_PATIENCE", "3", False),
        ("mlflow_experiment_name: 抽出 その一", "MLFLOW_EXPERIMENT_NAME", "抽出 その一", False),
    ],
)
def test_single_keys(imported: Import, lines: str, key: str, value: str, marked: bool) -> None:
    stage = imported(CONFIG + lines + "\n")
    assert stage.value(key) == value
    assert bool(stage.differs(key)) == marked


@pytest.mark.parametrize(
    ("size", "ratio", "says"), [("0", 0, ""), ("0.2", 0.2, "held out"), ("2000", 0.05, "2000 ÷")]
)
def test_held_out_rows(imported: Import, size: str, ratio: float, says: str) -> None:
    stage = imported(CONFIG.replace("val_set_size: 0.1", f"val_set_size: {size}"))
    assert stage.settings.data.val_ratio == ratio
    assert says in stage.differs("SFT_VAL_RATIO")


@pytest.mark.parametrize(
    ("lines", "ratio", "says"),
    [
        ("warmup_steps: 100", 0.03, "100 ÷"),
        ("warmup_steps: 100\nmax_steps: 1000", 0.1, ""),
        ("warmup_steps: 0", 0, ""),
        ("", 0.03, "at most 100"),
    ],
)
def test_warm_up(imported: Import, lines: str, ratio: float, says: str) -> None:
    stage = imported(CONFIG.replace("warmup_ratio: 0.03", lines))
    assert stage.settings.training.warmup_ratio == ratio
    assert says in stage.differs("SFT_WARMUP_RATIO")


def test_qlora_is_four_bits_also_where_only_the_adapter_says_so(imported: Import) -> None:
    stage = imported(CONFIG.replace("adapter: lora", "adapter: qlora"))
    assert stage.value("SFT_QUANTIZATION") == "nf4-double"


def test_data_sets_behind_one_another_are_drawn_whole(imported: Import) -> None:
    """Their equal weights as shares would have drawn as much of the small one as of the large one."""
    more = "  - {path: me/own's, split: 'train[:50%]'}\n  - {path: json, data_files: [a.jsonl, b.jsonl]}\n"
    stage = imported(CONFIG.replace("output_dir", more + "output_dir"))
    assert stage.settings.data.mix == (
        MixEntry("data/ニュース.json", 1.0),
        MixEntry("me/own's", 1.0, "train[:50%]"),
        MixEntry("a.jsonl", 1.0),
        MixEntry("b.jsonl", 1.0),
    )
    assert stage.settings.data.mix_weights == "multiplier"


def test_alpaca_rows_keep_their_layout_unless_conversations_stand_beside_them(imported: Import) -> None:
    alpaca = CONFIG.replace("type: chat_template", "type: alpaca") + "chat_template: qwen3\n"
    alone = imported(alpaca)
    assert alone.value("SFT_CHAT_TEMPLATE") == "alpaca"
    assert alone.differs("SFT_CHAT_TEMPLATE")
    mixed = imported(alpaca.replace("output_dir", "  - {path: me/chats, type: chat_template}\noutput_dir"))
    assert mixed.value("SFT_CHAT_TEMPLATE") == ""
    assert "datasets[].type" in mixed.advice()


def test_other_columns_are_named_with_the_name_they_need(imported: Import) -> None:
    entry = "    field_messages: 会話\n    roles_to_train: [user]\n    shards: 4\n    fancy: 1\n"
    advice = imported(CONFIG.replace("output_dir", entry + "output_dir")).advice()
    assert advice["datasets[0].field_messages"] == "rename the column 会話 to messages"
    assert "assistant" in advice["datasets[0].roles_to_train"]
    assert "train[:10%]" in advice["datasets[0].shards"]
    assert "not known" in advice["datasets[0].fancy"]
    own = "type: {field_instruction: 質問, field_output: output, format: '[INST] {instruction}'}"
    advice = imported(CONFIG.replace("type: chat_template", own)).advice()
    assert "instruction" in advice["datasets[0].type.field_instruction"]
    assert "jinja" in advice["datasets[0].type.format"]
    assert "datasets[0].type.field_output" not in advice


def test_stacked_expert_parameters_become_module_names(imported: Import) -> None:
    lines = CONFIG.replace("lora_target_modules: [q_proj, v_proj, gate_proj, up_proj, down_proj]", "")
    lines += "lora_target_modules: [q_proj]\n"
    lines += "lora_target_parameters: [mlp.experts.gate_up_proj, mlp.experts.down_proj]\n"
    stage = imported(lines)
    assert stage.settings.lora.target_modules == ("q_proj", "gate_proj", "up_proj", "down_proj")


def test_a_test_set_is_the_evaluation_set(imported: Import) -> None:
    lines = CONFIG.replace("val_set_size: 0.1", "test_datasets: [{path: held/out.jsonl, split: test}]")
    stage = imported(lines)
    assert stage.settings.evaluation.dataset_id == "held/out.jsonl"
    assert stage.settings.data.val_ratio == 0
    assert "not test" in stage.differs("SFT_GEN_EVAL_DATASET_ID")


def test_what_is_no_supervised_lora_training_is_refused_all_at_once(imported: Import) -> None:
    with pytest.raises(InputError) as caught:
        imported("base_model: me/base\nrl: dpo\nmicro_batch_size: two\nlearning_rate: 1e-4\ndatasets: []\n")
    keys = [problem.key for problem in caught.value.problems]
    assert keys[:3] == ["adapter", "rl", "datasets"]
    assert "SFT_PER_DEVICE_TRAIN_BS, from micro_batch_size: two" in keys
    assert {problem.where.rpartition("/")[2] for problem in caught.value.problems} == {"config.yml"}
