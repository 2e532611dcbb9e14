"""The option surface, frozen: a key that is added, renamed or gets another default shows here."""

import dataclasses
import subprocess
import sys

import pytest

from lib.settings import LoraSettings, TrackingSettings, TrainingSettings
from lib.settings.stage import KEYS

DEFAULTS = {
    "SFT_STRICT": "0",
    "SFT_SEED": "3407",
    "SFT_OUT_LORA_DIR": None,
    "SFT_BASE_MODEL": None,
    "SFT_BASE_REVISION": "",
    "SFT_DTYPE": "auto",
    "SFT_QUANTIZATION": "none",
    "SFT_ATTENTION": "auto",
    "SFT_GRADIENT_CHECKPOINTING": "auto",
    "SFT_MERGE_MODE": "merge",
    "SFT_MERGE_MIN_KEPT": "0.5",
    "SFT_LORA_R": "16",
    "SFT_LORA_ALPHA": "32",
    "SFT_LORA_DROPOUT": "0.05",
    "SFT_LORA_TARGET_MODULES": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    "SFT_ADAPTER_DTYPE": "bf16",
    "SFT_DATASET_MIX": None,
    "SFT_DATASET_IDS": None,
    "SFT_DATASET_ID": None,
    "SFT_DATASET_MIX_TOTAL_SIZE": "",
    "SFT_MIX_UNIT": "rows",
    "SFT_MIX_WEIGHTS": "share",
    "SFT_MIX_EXHAUSTED": "repeat",
    "SFT_MIX_MAX_REPEATS": "",
    "SFT_NEGATIVE_SHARE": "",
    "SFT_NEGATIVE_LABELS": "",
    "SFT_VAL_RATIO": "0.05",
    "SFT_MAX_SEQ_LEN": "2048",
    "SFT_CHAT_TEMPLATE": "",
    "SFT_ALLOW_TEMPLATE_CHANGE": "0",
    "SFT_MASK_COT": "1",
    "SFT_OUTPUT_MARKERS": "Output:,OUTPUT:,Final:,Answer:,Result:,Response:",
    "SFT_OUTPUT_LEARN_MODE": "after_marker",
    "SFT_USE_UPSAMPLING": "0",
    "SFT_UPSAMPLE_RULES": "",
    "SFT_PACKING": "0",
    "SFT_REPLAY": "0",
    "SFT_ORDER": "shuffled",
    "SFT_ORDER_PACING": "linear",
    "SFT_ORDER_LEVELS": "simple|easy|low,medium|moderate,complex|hard|high",
    "SFT_CACHE_DIR": "",
    "SFT_DATASET_STREAMING": "0",
    "SFT_CACHE_GB": "100",
    "SFT_DATASET_NUM_PROC": "",
    "SFT_AUDIT": "off",
    "SFT_AUDIT_CHECKS": "empty,truncated,format,template_token,"
    "duplicate,near_duplicate,evaluation,near_evaluation",
    "SFT_NEAR_DUPLICATE_THRESHOLD": "0.9",
    "SFT_EPOCHS": "1",
    "SFT_MAX_STEPS": "-1",
    "SFT_PER_DEVICE_TRAIN_BS": "2",
    "SFT_PER_DEVICE_EVAL_BS": "2",
    "SFT_GROUP_BY_LENGTH": "0",
    "SFT_GRAD_ACCUM": "8",
    "SFT_GLOBAL_BATCH_SIZE": "",
    "SFT_LR": "1e-4",
    "SFT_LR_SCHEDULER": "cosine",
    "SFT_MIN_LR_RATIO": "0.0",
    "SFT_WARMUP_RATIO": "0.03",
    "SFT_WEIGHT_DECAY": "0.0",
    "SFT_MAX_GRAD_NORM": "1.0",
    "SFT_OPTIM": "adamw_torch",
    "SFT_LOGGING_STEPS": "10",
    "SFT_EVAL_STEPS": "100",
    "SFT_SAVE_STEPS": "100",
    "SFT_SAVE_TOTAL_LIMIT": "3",
    "SFT_EARLY_STOPPING_PATIENCE": "0",
    "SFT_BEST_METRIC": "eval_loss",
    "SFT_NEFTUNE_NOISE_ALPHA": "0",
    "SFT_ON_NAN": "stop",
    "SFT_ON_SPIKE": "warn",
    "SFT_SPIKE_DEVIATIONS": "10",
    "SFT_STALL_SECONDS": "60",
    "SFT_ON_STALL": "continue",
    "SFT_DDP_TIMEOUT": "7200",
    "SFT_ZERO_STAGE": "2",
    "SFT_DEEPSPEED_CONFIG": "",
    "SFT_GEN_EVAL_DATASET_ID": "",
    "SFT_GEN_EVAL_SAMPLES": "200",
    "SFT_GEN_EVAL_SEED": "42",
    "SFT_GEN_EVAL_BATCH_SIZE": "16",
    "SFT_GEN_EVAL_MAX_NEW_TOKENS": "1024",
    "SFT_GEN_EVAL_BEFORE": "0",
    "SFT_GEN_EVAL_TOKEN_BUDGET": "0",
    "SFT_GEN_EVAL_TIME_BUDGET": "0",
    "SFT_GEN_EVAL_EVERY": "1",
    "SFT_GEN_EVAL_TASK": "auto",
    "SFT_GEN_EVAL_STYLE": "",
    "SFT_RETENTION_MIN": "0",
    "MLFLOW_EXPERIMENT_NAME": "llm-training-stage{N}",
    "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db",
    "SFT_TENSORBOARD": "0",
}


def test_keys_and_defaults_are_frozen() -> None:
    assert {name: key.default for name, key in KEYS.items()} == DEFAULTS


def test_every_default_is_a_value_that_its_key_allows() -> None:
    for key in KEYS.values():
        if key.default is not None:
            key.reader.parse(key.default)


def test_groups_without_required_keys_can_be_made_from_defaults() -> None:
    assert (LoraSettings().rank, TrainingSettings().lr, TrackingSettings().uri[:9]) == (16, 1e-4, "sqlite://")


def test_settings_cannot_be_changed() -> None:
    lora = LoraSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        lora.rank = 8  # type: ignore[misc]


def test_import_stays_light() -> None:
    heavy = "torch transformers datasets mlflow numpy dotenv logging tempfile"
    code = f"import sys, lib.settings; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
