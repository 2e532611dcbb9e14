"""Attention row by row against transformers' own with its dense mask."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import MistralConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.masking_utils import (
    create_causal_mask,
    create_chunked_causal_mask,
    create_sliding_window_causal_mask,
    sdpa_mask,
)

from lib.model import packed_attention
from lib.model.packed_attention import IMPLEMENTATION, RowMask, row_mask, use_attention_by_row

LENGTHS = (5, 1, 9, 2)
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]
SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}


@pytest.fixture
def model() -> Callable[..., Any]:
    def make(by_row: bool = True) -> PreTrainedModel:
        torch.manual_seed(0)
        made = Qwen3ForCausalLM._from_config(Qwen3Config(**SIZES), attn_implementation="sdpa").eval()
        if by_row:
            use_attention_by_row(made)
        return made

    return make


def masks(create: Callable[..., Any], config: Any, positions: torch.Tensor = POSITIONS) -> tuple[Any, Any]:
    """(ours, the dense one) as a model would get them."""
    hidden = torch.zeros(1, positions.shape[1], 32)
    made = []
    for implementation in (IMPLEMENTATION, "sdpa"):
        config._attn_implementation = implementation
        made.append(create(config, hidden, None, None, position_ids=positions))
    return made[0], made[1]


def dense(mask: RowMask) -> torch.Tensor:
    blocks = [
        torch.ones(length, length, dtype=torch.bool).tril() if within is None else within[0, 0]
        for length, within in zip(mask.lengths, mask.within, strict=True)
    ]
    return torch.block_diag(*blocks)[None, None].bool()


@pytest.fixture(autouse=True)
def registered(model: Callable[..., Any]) -> None:
    model()


def test_the_mask_knows_the_rows() -> None:
    ours, theirs = masks(create_causal_mask, Qwen3Config(**SIZES))
    assert ours == RowMask([5, 1, 9, 2], [None] * 4)
    assert torch.equal(dense(ours), theirs)


@pytest.mark.parametrize("window", [2, 4, 9])
def test_a_window_masks_only_the_rows_that_exceed_it(window: int) -> None:
    ours, theirs = masks(create_sliding_window_causal_mask, MistralConfig(**SIZES, sliding_window=window))
    assert ours.lengths == [5, 1, 9, 2]
    assert [within is not None for within in ours.within] == [length > window for length in LENGTHS]
    assert torch.equal(dense(ours), theirs)


def test_chunks_are_rows_of_their_own() -> None:
    config = Qwen3Config(**SIZES)
    config.attention_chunk_size = 4
    ours, theirs = masks(create_chunked_causal_mask, config)
    assert ours.lengths == [4, 1, 1, 4, 4, 1, 2]
    assert torch.equal(dense(ours), theirs)


def test_one_row_needs_no_mask() -> None:
    assert masks(create_causal_mask, Qwen3Config(**SIZES), torch.arange(7)[None]) == (None, None)


def test_what_looks_ahead_gets_the_dense_mask() -> None:
    blocks = torch.tensor([[-1, 0, 0, 0, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1]])
    ours, theirs = masks(
        lambda *a, **k: create_causal_mask(*a, **k, block_sequence_ids=blocks), Qwen3Config(**SIZES)
    )
    assert torch.equal(ours, theirs)


def test_an_overlay_of_unknown_form_gets_the_dense_mask() -> None:
    ours, theirs = masks(
        lambda *a, **k: create_causal_mask(*a, **k, and_mask_function=lambda b, h, q, kv: q - kv < 3),
        Qwen3Config(**SIZES),
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "batch",
    [
        {"input_ids": torch.arange(3, 17).reshape(2, 7)},
        {
            "input_ids": torch.arange(3, 17).reshape(2, 7),
            "attention_mask": torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]]),
        },
        {"input_ids": torch.arange(3, 10)[None], "position_ids": torch.arange(7)[None]},
    ],
    ids=["rows", "padded", "one row"],
)
def test_other_batches_are_computed_as_before(batch: dict[str, Any], model: Callable[..., Any]) -> None:
    with torch.no_grad():
        assert torch.equal(model()(**batch).logits, model(by_row=False)(**batch).logits)


def test_it_generates_as_before(model: Callable[..., Any]) -> None:
    batch = {"input_ids": torch.tensor([[0, 0, 5, 6], [7, 8, 9, 3]])}
    batch["attention_mask"] = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    limits = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model().generate(**batch, **limits), model(by_row=False).generate(**batch, **limits))


def test_rows_in_one_sequence_equal_the_dense_mask_and_never_make_one(
    model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(3, 20)[None]
    expected = model(by_row=False)(input_ids=ids, position_ids=POSITIONS, use_cache=False).logits
    by_row = model()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a dense mask was made")

    monkeypatch.setattr(packed_attention, "sdpa_mask", refuse)
    found = by_row(input_ids=ids, position_ids=POSITIONS, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_no_bit(model: Callable[..., Any]) -> None:
    gradients = []
    for checkpointing in (False, True):
        made = model().train()
        if checkpointing:
            made.gradient_checkpointing_enable({"use_reentrant": False})
        logits = made(input_ids=torch.arange(3, 20)[None], position_ids=POSITIONS, use_cache=False).logits
        logits.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in made.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_the_signature_is_that_of_transformers() -> None:
    """It calls by keyword: what it adds must be known to be harmless."""
    import inspect

    known = {"batch_size", "q_length", "kv_length", "q_offset", "kv_offset", "mask_function"}
    known |= {"attention_mask", "local_size", "allow_is_causal_skip", "allow_is_bidirectional_skip"}
    known |= {"use_vmap", "device", "kwargs"}
    assert set(inspect.signature(sdpa_mask).parameters) == known
    assert set(inspect.signature(row_mask).parameters) - {"options"} <= known
