"""The loss of labelled tokens against the model's own, for families that make logits in different ways."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from lib.model.output_head import output_head
from lib.training.loss import LabelledLoss

SIZES = {
    "vocab_size": 211,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    # Logits large enough that a missing cap or scale shows.
    "initializer_range": 0.4,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "GPT2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "bos_token_id": 1, "eos_token_id": 1},
    "Gemma2": {"final_logit_softcapping": 4.0, "query_pre_attn_scalar": 8},
    "Granite": {"logits_scaling": 5.0},
    "Cohere": {"logit_scale": 0.25},
    "Phi": {},
    "Qwen3Moe": EXPERTS | {"num_experts": 4},
    "Mixtral": EXPERTS | {"num_local_experts": 4},
}
# Multiplies by what Granite divides by.
UNKNOWN = ("HyperCLOVAX", {"logits_scaling": 5.0})


def model_of(family: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**SIZES | options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    if model.get_output_embeddings().bias is not None:
        nn.init.normal_(model.get_output_embeddings().bias)
    return model.requires_grad_(False)


def padded_batch() -> dict[str, torch.Tensor]:
    """Three rows of 9, 6 and 4 tokens; labelled are 6, 1 and none of them, one of them a row's first."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, SIZES["vocab_size"], (3, 9), generator=generator)
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 4 + [0] * 5])
    labels = torch.full_like(ids, -100)
    labels[0, 0], labels[0, 3:], labels[1, 5] = ids[0, 0], ids[0, 3:], ids[1, 5]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def with_trained_input(model: Any) -> torch.Tensor:
    """Something that learns below the head: an addition to every embedding."""
    shift = torch.zeros(SIZES["hidden_size"], requires_grad=True)
    model.get_input_embeddings().register_forward_hook(lambda *call: call[2] + shift)
    return shift


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_the_models_own(family: str) -> None:
    model = model_of(family, FAMILIES[family])
    loss = LabelledLoss(model)
    assert loss.notices == ()
    shift = with_trained_input(model)
    found = loss(**padded_batch())
    found.losses.mean().backward()
    assert shift.grad is not None
    ours, shift.grad = shift.grad, None
    own = model(**padded_batch()).loss
    own.backward()
    assert len(found.losses) == 7
    assert found.losses.mean().item() == pytest.approx(own.item(), rel=1e-6)
    assert (ours - shift.grad).norm() < 2e-6 * shift.grad.norm()


def test_in_bf16_too() -> None:
    model = model_of("Gemma2", FAMILIES["Gemma2"]).to(torch.bfloat16)
    loss = LabelledLoss(model)
    assert not loss.obstacle
    own = model(**padded_batch()).loss.item()
    assert loss(**padded_batch()).losses.mean().item() == pytest.approx(own, rel=1e-2)


def test_an_unknown_way_to_make_logits_is_found_and_said() -> None:
    family, options = UNKNOWN
    model = model_of(family, options)
    loss = LabelledLoss(model)
    (notice,) = loss.notices
    assert notice.startswith("[WARNING] the loss of HyperCLOVAXForCausalLM is computed from all its logits")
    assert "where the model says" in notice
    shift = with_trained_input(model)
    found = loss(**padded_batch())
    own = model(**padded_batch()).loss
    assert found.losses.mean().item() == pytest.approx(own.item(), rel=1e-6)
    found.losses.sum().backward()
    assert shift.grad is not None
    assert shift.grad.any()


def test_a_model_in_one_piece_is_left_to_its_own_forward() -> None:
    model = model_of("Llama", {})
    model.base_model_prefix = "nowhere"
    assert output_head(model) is None
    loss = LabelledLoss(model)
    assert "it has no separate output layer" in loss.notices[0]
    assert loss(**padded_batch()).losses.mean().item() == pytest.approx(
        model(**padded_batch()).loss.item(), rel=1e-6
    )


def test_the_trial_changes_neither_mode_nor_random_state() -> None:
    model = model_of("Qwen3Moe", FAMILIES["Qwen3Moe"]).train()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    LabelledLoss(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training


def test_unlabelled_positions_never_meet_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = LabelledLoss(model_of("Llama", {}))
    widths = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, *b, **c: widths.append(a.shape) or multiply(a, *b, **c))
    loss(**padded_batch())
    assert widths == [(7, SIZES["hidden_size"])]


def test_packed_rows_are_scored_as_apart() -> None:
    """Rows behind each other, positions restarted, the first label of each -100: only attention could mix
    them, and here it is kept apart by the mask that transformers makes from the positions."""
    model = model_of("Llama", {})
    loss = LabelledLoss(model)
    rows = [torch.arange(3, 9), torch.arange(20, 24), torch.arange(40, 51)]
    apart = torch.cat([loss(input_ids=row[None], labels=row[None]).losses for row in rows])
    labels = torch.cat([torch.cat([torch.tensor([-100]), row[1:]]) for row in rows])[None]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    together = loss(input_ids=torch.cat(rows)[None], labels=labels, position_ids=positions)
    assert torch.allclose(together.losses, apart, rtol=1e-5)


def test_sums_by_row() -> None:
    found = LabelledLoss(model_of("Llama", {}))(**padded_batch())
    loss, labelled, correct = found.sums_by_row(3).T.tolist()
    assert labelled == [6, 1, 0]
    assert loss[2] == 0
    assert sum(loss) == pytest.approx(found.losses.sum().item(), rel=1e-6)
    assert sum(correct) == int(found.correct.sum())


def test_through_the_forward_of_the_model() -> None:
    """What wraps a model calls its forward; without being asked for, that is the model's own."""
    model = model_of("Llama", {})
    loss = LabelledLoss(model)
    own = model(**padded_batch())
    loss.through_forward()
    assert torch.equal(model(**padded_batch(), token_losses=True).losses, loss(**padded_batch()).losses)
    again = model(**padded_batch())
    assert torch.equal(again.loss, own.loss)
    assert torch.equal(again.logits, own.logits)
    # Generation checks its arguments against the signature of the forward.
    assert model.generate(torch.tensor([[3, 4]]), max_new_tokens=2, do_sample=False).shape == (1, 4)
