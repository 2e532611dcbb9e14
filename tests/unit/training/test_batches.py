"""Rows in one sequence: computed as if each were alone, or refused."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from lib.data.chat.encoded import EncodedRow
from lib.data.order.packing import pack_rows, rows_alone
from lib.settings import InputError
from lib.training.batches import BatchForm, choose_batch_form
from lib.training.row_separation import mixing_of_rows
from lib.training.row_tables import training_dataset, validation_dataset

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": None,
}
WIDE_HEADS = {"head_dim": 8}
MOE = {"num_experts_per_tok": 2}
# Model, own settings, attention.
SEPARATING: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen3_moe": ("Qwen3MoeForCausalLM", MOE | {"num_experts": 4, "moe_intermediate_size": 16}, "sdpa"),
    "qwen3": ("Qwen3ForCausalLM", WIDE_HEADS, "sdpa"),
    "llama": ("LlamaForCausalLM", {}, "sdpa"),
    "mixtral": ("MixtralForCausalLM", MOE | {"num_local_experts": 4}, "sdpa"),
    "learned positions": ("GPT2LMHeadModel", {}, "sdpa"),
    "sliding window": ("MistralForCausalLM", {"sliding_window": 5}, "sdpa"),
    "eager, soft-capped, sliding": ("Gemma2ForCausalLM", WIDE_HEADS | {"sliding_window": 5}, "eager"),
}
MIXING: dict[str, tuple[str, dict[str, Any], str]] = {
    "positions from the mask": ("OPTForCausalLM", {"ffn_dim": 48, "word_embed_proj_dim": 32}, "sdpa"),
    "state space": ("MambaForCausalLM", {}, "eager"),
    "mask without positions": ("GptOssForCausalLM", MOE | WIDE_HEADS | {"num_local_experts": 4}, "eager"),
}


def make(name: str, own: dict[str, Any], attention: str) -> Any:
    torch.manual_seed(5)
    family = getattr(transformers, name)
    return family._from_config(family.config_class(**(SIZES | own)), attn_implementation=attention).eval()


def row(length: int, first: int) -> EncodedRow:
    """All tokens but every third are learned, the first one too."""
    ids = [(first + 7 * i) % 61 + 3 for i in range(length)]
    return EncodedRow(f"s#{first}", "s", (), "ok", ids, [i % 3 != 2 for i in range(length)], 1)


ROWS = [row(length, 11 * i + 1) for i, length in enumerate((9, 14, 3, 7, 1, 12))]
TOKENIZER: Any = SimpleNamespace(pad_token_id=None, eos_token_id=2)


def batch_of(rows: Sequence[EncodedRow], *, padding_free: bool = True) -> dict[str, Any]:
    dataset = training_dataset(rows, [tuple(range(len(rows)))] if padding_free else rows_alone(len(rows)))
    return BatchForm(padding_free, "").collator(TOKENIZER)([*dataset])


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return model(**inputs, use_cache=False).logits


def loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Summed, as transformers shifts labels."""
    predicted = logits(model, batch)[:, :-1].flatten(0, 1).float()
    return cross_entropy(predicted, batch["labels"][:, 1:].flatten(), reduction="sum")


@pytest.mark.parametrize("family", SEPARATING)
def test_loss_and_gradients_of_packed_rows_are_those_of_the_rows(family: str) -> None:
    model = make(*SEPARATING[family])
    assert choose_batch_form(model, ROWS, packing=True).padding_free
    packs = pack_rows([len(r.input_ids) for r in ROWS], capacity=20, seed=1)
    assert len(packs) < len(ROWS)
    collate = BatchForm(True, "").collator(TOKENIZER)
    packed = [collate([sequence]) for sequence in training_dataset(ROWS, packs)]
    alone = [batch_of([r], padding_free=False) for r in ROWS]
    gradients, losses = [], []
    for batches in (packed, alone):
        model.zero_grad()
        total = sum(loss(model, batch) for batch in batches)
        total.backward()  # type: ignore[union-attr]
        losses.append(float(total.detach()))  # type: ignore[union-attr]
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, wanted in gradients[1].items():
        assert (gradients[0][name] - wanted).norm() <= 2e-5 * wanted.norm() + 1e-6, name


@pytest.mark.parametrize("family", SEPARATING)
def test_a_row_does_not_see_its_neighbours(family: str) -> None:
    model = make(*SEPARATING[family])
    choose_batch_form(model, ROWS, packing=True)
    first, changed, last = ROWS[0], ROWS[1], ROWS[5]
    other = row(len(changed.input_ids), first=29)
    with torch.no_grad():
        before, after = (logits(model, batch_of([first, middle, last]))[0] for middle in (changed, other))
        shorter = logits(model, batch_of([first, row(4, 29), last]))[0]
    start, end = len(first.input_ids), len(first.input_ids) + len(changed.input_ids)
    assert (before[start:end] - after[start:end]).abs().max() > 0.1
    for found in (after, shorter):
        torch.testing.assert_close(found[:start], before[:start], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(found[-12:], before[end:], atol=2e-5, rtol=1e-5)


def test_what_a_batch_without_padding_holds() -> None:
    batch = batch_of([ROWS[2], ROWS[4], ROWS[3]])
    assert batch["input_ids"].tolist() == [
        [*ROWS[2].input_ids, *ROWS[4].input_ids, *ROWS[3].input_ids],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6]]
    expected = [label for r in (ROWS[2], ROWS[4], ROWS[3]) for label in (-100, *r.targets()[1:])]
    assert batch["labels"].tolist() == [expected]
    assert ROWS[3].targets()[0] != -100
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 4, 11]
    assert (batch["max_length_q"], "attention_mask" in batch) == (7, False)


def test_a_dataset_has_an_entry_for_every_pack() -> None:
    dataset = training_dataset(ROWS, ((4, 2), (0,)))
    assert dataset["input_ids"][:] == [[*ROWS[4].input_ids, *ROWS[2].input_ids], ROWS[0].input_ids]
    assert dataset["labels"][:] == [[*ROWS[4].targets(), *ROWS[2].targets()], ROWS[0].targets()]
    assert dataset["seq_lengths"][:] == [[1, 3], [9]]
    assert dataset.column_names == ["input_ids", "labels", "seq_lengths"]


def test_rows_of_a_batch_and_rows_of_a_pack_are_the_same_batch() -> None:
    collate = BatchForm(True, "").collator(TOKENIZER)
    of_rows = collate([*training_dataset(ROWS, rows_alone(6))])
    of_packs = collate([*training_dataset(ROWS, ((0, 1), (2,), (3, 4, 5)))])
    assert of_rows.keys() == of_packs.keys()
    assert all(torch.equal(torch.as_tensor(of_rows[k]), torch.as_tensor(of_packs[k])) for k in of_rows)


@pytest.mark.parametrize("evaluated", [False, True])
def test_padded_batches_and_those_of_an_evaluation_stay_as_they_were(evaluated: bool) -> None:
    """An evaluation pads even where training does not: its results are gathered row by row."""
    if evaluated:
        batch = BatchForm(True, "").collator(TOKENIZER)([*validation_dataset([ROWS[2], ROWS[4]])])
    else:
        batch = batch_of([ROWS[2], ROWS[4]], padding_free=False)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"][1].tolist() == [*ROWS[4].input_ids, 2, 2]
    assert batch["labels"].tolist() == [ROWS[2].targets(), [ROWS[4].input_ids[0], -100, -100]]


@pytest.mark.parametrize("family", MIXING)
def test_a_model_that_mixes_rows_is_found_out(family: str) -> None:
    model = make(*MIXING[family])
    implementation = model.config._attn_implementation
    form = choose_batch_form(model, ROWS, packing=False)
    assert not form.padding_free
    assert form.line().startswith("  batches with padding: ")
    assert model.config._attn_implementation == implementation
    with pytest.raises(InputError) as caught:
        choose_batch_form(model, ROWS, packing=True)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("SFT_PACKING", "1")
    assert "a row changes with the one before it" in problem.expected
    assert "SFT_PACKING=0" in problem.remedy


def test_a_forward_that_does_not_take_borders_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(*SEPARATING["llama"])
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, use_cache: plain(input_ids, use_cache=use_cache))
    assert "the forward does not take such a batch" in mixing_of_rows(model, ROWS)


def test_half_precision_is_no_mixing() -> None:
    model = make(*SEPARATING["qwen3_moe"]).bfloat16().train()
    assert mixing_of_rows(model, ROWS) == ""
    assert model.training
    assert mixing_of_rows(make(*MIXING["positions from the mask"]).bfloat16(), ROWS)


def test_eager_attention_pads_unless_packing_is_asked_for() -> None:
    name, own, _ = SEPARATING["qwen3"]
    assert not choose_batch_form(make(name, own, "eager"), ROWS, packing=False).padding_free
    assert choose_batch_form(make(name, own, "eager"), ROWS, packing=True).padding_free
