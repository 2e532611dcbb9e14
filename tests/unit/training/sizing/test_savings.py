"""What to lower when memory is short."""

from collections.abc import Callable

from lib.model.architecture import Architecture
from lib.settings import StageSettings
from lib.training.sizing.batch import longest_pass, plan_batch, resolved
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.memory import estimate_memory
from lib.training.sizing.savings import memory_savings, savings_lines
from lib.training.sizing.world import World

QWEN3_30B = Architecture(
    family="qwen3_moe", hidden=2048, layers=48, heads=32, kv_heads=4, head_dim=128, intermediate=768,
    experts=128, experts_per_token=8, vocabulary=151_936, tied=False, bytes_per_weight=2,
)  # fmt: skip
FOUR = World(4, 4)
Stage = Callable[..., StageSettings]


def settings(stage: Stage, **keys: object) -> StageSettings:
    keys = {"SFT_MAX_SEQ_LEN": 2048, "SFT_LORA_R": 16, "SFT_GRADIENT_CHECKPOINTING": 0, **keys}
    made = stage(**keys)
    return resolved(made, plan_batch(made, None, FOUR, DeviceMemory(80 * 10**9, "a GPU of 80 GB")))


def test_every_change_saves_and_the_harmless_ones_come_first(stage: Stage) -> None:
    """Four bits are not among them: the stacked experts, nearly all of this model, stay as they are."""
    found = memory_savings(settings(stage), QWEN3_30B, FOUR)
    assert [saving.keys for saving in found] == [
        "SFT_PER_DEVICE_TRAIN_BS=1 with SFT_GRAD_ACCUM=16",
        "SFT_GRADIENT_CHECKPOINTING=1",
        "SFT_MAX_SEQ_LEN=1024",
        "SFT_LORA_R=8",
        "all of these",
    ]
    assert all(saving.bytes > found[-1].bytes for saving in found[:-1])


def test_what_is_low_already_is_not_named(stage: Stage) -> None:
    low = settings(stage, SFT_PER_DEVICE_TRAIN_BS=1, SFT_GRADIENT_CHECKPOINTING=1, SFT_LORA_R=8)
    named = " ".join(saving.keys for saving in memory_savings(low, QWEN3_30B, FOUR))
    assert "SFT_PER_DEVICE_TRAIN_BS" not in named
    assert "SFT_GRADIENT_CHECKPOINTING" not in named
    assert "SFT_LORA_R" not in named


def test_the_global_batch_stays_where_it_is_given(stage: Stage) -> None:
    given = settings(stage, SFT_GLOBAL_BATCH_SIZE=64, SFT_PER_DEVICE_TRAIN_BS=4)
    assert memory_savings(given, QWEN3_30B, FOUR)[0].keys == "SFT_PER_DEVICE_TRAIN_BS=2"


def test_lines_say_what_fits_only_where_it_did_not(stage: Stage) -> None:
    short = savings_lines(settings(stage), QWEN3_30B, FOUR, 72 * 10**9)
    assert short[-1].endswith("fits in 72.0 GB")
    assert not any("fits" in line for line in savings_lines(settings(stage), QWEN3_30B, FOUR, 10**12))
    assert savings_lines(settings(stage), None, FOUR, 72 * 10**9) == []


def test_a_saving_is_the_estimate_of_what_it_says(stage: Stage) -> None:
    """Setting the keys gives the number that was promised."""
    promised = memory_savings(settings(stage), QWEN3_30B, FOUR)[0]
    changed = settings(stage, SFT_PER_DEVICE_TRAIN_BS=1, SFT_GRAD_ACCUM=16)
    assert promised.bytes == estimate_memory(longest_pass(changed, QWEN3_30B, FOUR, 1, False)).total
