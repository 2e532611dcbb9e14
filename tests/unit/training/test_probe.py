"""The trainability probe on real tiny models: what it sees, what it catches, and that it leaves no trace."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from peft.tuners.lora import LoraLayer

from lib.data.chat.encoded import EncodedRow
from lib.preflight.trainability import judged
from lib.training.probe import Probe, probe

END = 2
ROWS = [
    EncodedRow(f"s#{i}", "s", (), "ok", [5, 9, 12 + i, 30, 41, 17, END], [False] * 3 + [True] * 4, 4)
    for i in range(2)
]


@pytest.fixture
def attached(tiny_model: Callable[..., Path]) -> Callable[..., Any]:
    """attached("qwen3_moe", SFT…): a model with a new adapter, and the batch of ROWS."""
    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base
    from lib.model.targets import find_targets
    from lib.settings import LoraSettings
    from lib.training.batches import choose_batch_form

    def make(family: str = "qwen3_moe", **lora: Any) -> Any:
        folder, attention = str(tiny_model(family)), "eager" if family == "gemma2" else "sdpa"
        base = StageBase(folder, "", folder, merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, attention, ""), on_gpu=False)
        settings = LoraSettings(rank=8, **lora)
        form = choose_batch_form(model, ROWS, packing=False)
        targets = find_targets(model, settings.target_modules)
        adapted, _ = attach_lora(model, targets, settings, seed=1)
        return SimpleNamespace(model=adapted, form=form)

    return make


def batch(form: Any, rows: list[EncodedRow] = ROWS) -> dict[str, Any]:
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=END)
    examples = [
        {"input_ids": row.input_ids, "labels": row.targets(), "seq_lengths": [len(row.input_ids)]}
        for row in rows
    ]
    return form.collator(tokenizer)(examples)


def tried(made: Any, rows: list[EncodedRow] = ROWS) -> Probe:
    return probe(made.model, batch(made.form, rows), rows=len(rows), dtype=torch.float32)


def failed(found: Probe, rows: list[EncodedRow] = ROWS) -> dict[str, str]:
    """What is said of each verdict that failed."""
    verdicts = judged(found, rows, [END])
    return {verdict.name: verdict.found + verdict.remedy for verdict in verdicts if verdict.state == "failed"}


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_moe_mixed", "qwen2_moe", "mixtral", "gemma2", "gpt2"])
def test_every_target_of_a_sound_model_is_reached(attached: Callable[..., Any], family: str) -> None:
    targets = ("c_attn", "c_proj", "c_fc") if family == "gpt2" else None
    made = attached(family, **({"target_modules": targets} if targets else {}))
    found = tried(made)
    assert failed(found) == {}
    assert {gradient.reach for gradient in found.gradients} == {"ok"}
    assert len(found.gradients) == sum("lora_A" in name for name, _ in made.model.named_parameters())
    assert found.learned == 8
    assert found.losses[1] < found.losses[0]
    assert list(found.seconds) == [
        "first forward", "first backward", "first optimizer step", "forward again", "backward again",
    ]  # fmt: skip


def test_the_router_too_where_it_is_asked_for(attached: Callable[..., Any]) -> None:
    found = tried(attached("qwen3_moe", target_modules=("q_proj", "gate")))
    assert {gradient.kind for gradient in found.gradients} == {"attention", "router"}
    assert failed(found) == {}


def test_a_target_that_is_attached_and_gets_no_gradient(attached: Callable[..., Any]) -> None:
    made = attached()
    for name, module in made.model.named_modules():
        if name.endswith("k_proj.lora_B.default"):
            module.register_forward_hook(lambda module, inputs, output: output.detach())
    found = failed(tried(made))
    assert list(found) == ["gradient: attention"]
    said = found["gradient: attention"]
    assert "k_proj" in said
    assert "model.layers.0.self_attn.k_proj and 1 more" in said
    assert "no gradient reaches it" in said


def test_a_first_half_alone_that_gets_none(attached: Callable[..., Any]) -> None:
    """A has no gradient in the first pass in any case: the second one finds it."""
    made = attached()
    for name, module in made.model.named_modules():
        if name.endswith("layers.1.self_attn.v_proj.lora_A.default"):
            module.register_forward_hook(lambda module, inputs, output: output.detach())
    assert "model.layers.1.self_attn.v_proj" in failed(tried(made))["gradient: attention"]


def test_a_frozen_expert_stack(attached: Callable[..., Any]) -> None:
    made = attached()
    for name, parameter in made.model.named_parameters():
        if ".experts." in name:
            parameter.requires_grad_(False)
    found = tried(made)
    assert "is attached but frozen" in failed(found)["gradient: experts"]
    assert {g.reach for g in found.gradients if g.kind == "attention"} == {"ok"}


def test_a_gradient_that_is_not_finite(attached: Callable[..., Any]) -> None:
    made = attached()
    with torch.no_grad():
        made.model.get_base_model().lm_head.weight[5, 0] = float("nan")
    assert "not finite" in str(failed(tried(made)))


def test_an_adapter_that_does_not_act(attached: Callable[..., Any]) -> None:
    made = attached()
    for module in made.model.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] = 0.0
    found = failed(tried(made))
    assert "a step" in found
    assert "gets a gradient of zero" in found["gradient: attention"]


def test_rows_of_which_nothing_is_learned(attached: Callable[..., Any]) -> None:
    masked = [replace(row, supervised=[False] * len(row.input_ids)) for row in ROWS]
    found = failed(tried(attached(), masked), masked)
    assert list(found) == ["learned tokens"]
    assert "--show-mask" in found["learned tokens"]


def test_a_template_that_hides_the_end_token(attached: Callable[..., Any]) -> None:
    """The end token stands in the rows, outside of what is learned."""
    hidden = [replace(row, supervised=[False] * 3 + [True] * 3 + [False]) for row in ROWS]
    found = failed(tried(attached(), hidden), hidden)
    assert list(found) == ["end token learned"]
    assert "2 of 2 rows" in found["end token learned"]
    some = [ROWS[0], hidden[1]]
    assert "1 of 2 rows" in failed(tried(attached(), some), some)["end token learned"]


def test_the_probe_changes_nothing_of_what_is_then_trained(attached: Callable[..., Any]) -> None:
    """Weights, gradients, mode, and what each source of randomness draws next; with dropout."""
    made = attached(dropout=0.1)
    made.model.eval()
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    states = (random.getstate(), numpy.random.get_state()[1].copy(), torch.get_rng_state())
    tried(made)
    after = made.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in made.model.parameters())
    assert not made.model.training
    assert random.getstate() == states[0]
    assert (numpy.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_it_leaves_nothing_behind_when_it_fails(attached: Callable[..., Any]) -> None:
    """In the second pass, when a step has moved the weights."""
    made = attached()
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    passed: list[Any] = []

    def fail(module: Any, inputs: Any) -> None:
        passed.append(module.training)
        if passed.count(True) == 2:
            raise RuntimeError("CUDA out of memory")

    made.model.get_base_model().model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        tried(made)
    assert all(parameter.grad is None for parameter in made.model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in made.model.state_dict().items())


def test_in_half_precision(attached: Callable[..., Any]) -> None:
    made = attached()
    made.model.get_base_model().to(torch.bfloat16)
    for name, parameter in made.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    found = probe(made.model, batch(made.form), rows=2, dtype=torch.bfloat16)
    assert {gradient.reach for gradient in found.gradients} == {"ok"}
    assert found.logits_change > 0
