import pytest

from lib.settings.stage import SPELLINGS
from lib.settings.suggestions import did_you_mean, did_you_mean_key


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("SFT_LORA_RANK", "SFT_LORA_R"),
        ("SFT_LEARNING_RATE", "SFT_LR"),
        ("SFT_EPOCH", "SFT_EPOCHS"),
        ("SFT_BATCH_SIZE", "SFT_PER_DEVICE_TRAIN_BS"),
        ("SFT_OUTPUT_DIR", "SFT_OUT_LORA_DIR"),
        ("SFT_MAX_SEQ_LENGHT", "SFT_MAX_SEQ_LEN"),
        ("sft_lr", "SFT_LR"),
        ("MLFLOW_EXPERIMENT", "MLFLOW_EXPERIMENT_NAME"),
        ("STF_LORA_R", "SFT_LORA_R"),
        ("lora_rank", "SFT_LORA_R"),
    ],
)
def test_misspelt_keys(given: str, meant: str) -> None:
    assert did_you_mean_key(given, SPELLINGS) == f"Did you mean {meant}?"


def test_nothing_near() -> None:
    for name in (
        "SFT_ZZZZZ",
        "HF_TOKEN",
        "CUDA_VISIBLE_DEVICES",
        "MLFLOW_TRACKING_PASSWORD",
        "OMP_NUM_THREADS",
    ):
        assert did_you_mean_key(name, SPELLINGS) == ""
    assert did_you_mean("quux", ["id", "weight"]) == ""


def test_one_spelling_leads_to_one_key() -> None:
    assert set(SPELLINGS.values()) <= set(SPELLINGS)
    assert all(SPELLINGS[key] == key for key in SPELLINGS.values())
