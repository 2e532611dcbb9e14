"""Operations of a token at the dimensions of Qwen3-30B-A3B, worked out by hand."""

from dataclasses import replace

import pytest
from test_memory import ON_ONE_GPU, QWEN3_30B

from lib.training.sizing.cards import CARDS
from lib.training.sizing.flops import pass_bytes, token_flops
from lib.training.sizing.speed import GPU_EFFICIENCY, cpu_speed, gpu_speed, pass_time

SHAPE = replace(ON_ONE_GPU, length=1024)
# A layer: q and o 2048 x 4096, k and v 2048 x 512, the router 2048 x 128, of 8 experts three of 2048 x 768.
LAYERS = 48 * (2 * 2048 * 4096 + 2 * 2048 * 512 + 2048 * 128 + 8 * 3 * 2048 * 768)
HEAD = 151_936 * 2048


def test_a_forward_pass_of_a_token_is_6_08_gflop() -> None:
    """3.04 billion weights are active (the model's card rounds to 3.3 with the embedding table)."""
    assert QWEN3_30B.active_parameters == LAYERS + HEAD
    assert pytest.approx(6.08e9, rel=1e-3) == 2 * (LAYERS + HEAD)
    flops = token_flops(SHAPE)
    assert flops["forward"] + flops["vocabulary"] / 2 == 2 * (LAYERS + HEAD)
    assert flops["back to the inputs"] == flops["forward"], "a frozen base has no gradient of its weights"


def test_attention_and_adapter_by_hand() -> None:
    flops = token_flops(SHAPE)
    # On average 512 tokens before: 2 x 4096 for the score and as much for the values, in 48 layers, and twice
    # that again going back.
    assert flops["attention"] == 3 * 48 * 512 * (2 * 4096 + 2 * 4096)
    # Rank 8: q and o 6144, k and v 2560; of 8 experts 2048 + 1536 and 768 + 2048. Three products a weight.
    assert flops["adapter"] == 3 * 2 * 8 * 48 * (2 * 6144 + 2 * 2560 + 8 * (3584 + 2816))
    assert "recomputed" not in flops


def test_what_adds_and_what_saves() -> None:
    plain, recomputed = token_flops(SHAPE), token_flops(replace(SHAPE, checkpointing=True))
    assert recomputed["recomputed"] == plain["forward"] + plain["attention"] / 3 + plain["adapter"] / 3
    assert token_flops(SHAPE, learned=0.25)["vocabulary"] == plain["vocabulary"] / 4
    stacked = token_flops(replace(SHAPE, frozen_adapters=2))
    assert stacked["adapter"] == pytest.approx(plain["adapter"] * (3 + 2 * 2) / 3)


def test_a_short_pass_waits_for_the_weights_a_long_one_for_its_products() -> None:
    """61 GB read twice at 3.35 TB/s are 36 ms, whatever the pass holds."""
    h100 = gpu_speed(next(card for card in CARDS if card.name == "H100"))
    short, long = (pass_time(SHAPE, tokens, 1.0, h100) for tokens in (64, 8192))
    assert short.seconds == short.reading == pytest.approx(0.0365, rel=0.01)
    assert long.seconds == long.computing
    assert long.computing == 8192 * sum(token_flops(SHAPE).values()) / (GPU_EFFICIENCY * 989.5e12)
    assert pass_bytes(replace(SHAPE, checkpointing=True)) == 1.5 * pass_bytes(SHAPE)


def test_processes_share_the_cores() -> None:
    assert cpu_speed(8, 4).flops == cpu_speed(2, 1).flops
    assert "4 processes" in cpu_speed(8, 4).stated
