"""An adapter folded into the base for a while: the same model, then the old bits again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.merged_weights import merged_for_good, temporarily_merged

FAMILIES = ("qwen3_moe", "mixtral", "qwen3", "gpt2")


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tiny_model: Callable[..., Path], attach: Callable[..., Any]) -> Any:
    """A tiny model under an adapter that does something."""
    import torch

    requested = {"gpt2": ("c_attn", "c_proj", "c_fc")}.get(request.param)
    peft_model, _ = attach(tiny_model(request.param), *([requested] if requested else []))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return peft_model.eval()


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[4, 5, 6, 7, 8, 9]])).logits


def bits(model: Any) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_the_same_answers_from_the_base_alone_and_the_old_bits_afterwards(model: Any) -> None:
    import torch

    before, expected = bits(model), logits(model)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), expected, atol=1e-3)  # the adapter matters
    with temporarily_merged(model):
        assert torch.allclose(logits(model), expected, atol=1e-4)
        changed = [
            name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])
        ]
        assert changed
        assert all("base_layer" in name for name in changed)
    after = bits(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(model), expected)


def test_weights_in_bf16_are_rounded_once(model: Any) -> None:
    import torch

    model.to(torch.bfloat16)
    layer = next(
        module
        for module in model.modules()
        if type(module).__name__ == "Linear" and hasattr(module, "lora_A")
    )
    a, b = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    update = layer.scaling["default"] * (b @ a)
    update = update.T if layer.fan_in_fan_out else update
    wanted = (layer.base_layer.weight.float() + update).to(torch.bfloat16)
    before = bits(model)
    with temporarily_merged(model):
        assert torch.equal(layer.base_layer.weight, wanted)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_they_come_back_after_a_failure_too(model: Any) -> None:
    import torch

    before, expected = bits(model), logits(model)
    with pytest.raises(KeyboardInterrupt), temporarily_merged(model):
        raise KeyboardInterrupt
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert torch.equal(logits(model), expected)


def test_a_model_without_adapter_is_left_alone(
    tiny_model: Callable[..., Path], load: Callable[[Path], Any]
) -> None:
    import torch

    plain = load(tiny_model("qwen3_moe"))
    before = bits(plain)
    with temporarily_merged(plain):
        assert all(torch.equal(parameter, before[name]) for name, parameter in plain.named_parameters())


def test_for_good_it_is_the_base_class_with_other_weights(model: Any) -> None:
    import torch
    from peft.tuners.lora import LoraLayer

    expected, family = logits(model), type(model.get_base_model())
    merged, obstacle = merged_for_good(model)
    assert obstacle == ""
    assert type(merged) is family
    assert not [module for module in merged.modules() if isinstance(module, LoraLayer)]
    assert torch.allclose(logits(merged), expected, atol=1e-4)


def adapted(model: Any, **fields: Any) -> Any:
    """`model` under a plain PEFT adapter that does something."""
    import torch
    from peft import LoraConfig, get_peft_model

    peft_model = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **fields))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return peft_model.eval()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"use_dora": True}, "more than a product of two factors"),
        ({"lora_bias": True, "target_modules": ["o_proj"]}, "more than a product of two factors"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "more than a product of two factors"),
        ({"modules_to_save": ["lm_head"]}, "is trained as a whole"),
    ],
)
def test_what_is_no_plain_lora_stays_beside_the_weights(
    tiny_model: Callable[..., Path], fields: dict[str, Any], says: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model("qwen3"), dtype=torch.float32)
    model = adapted(base, **({"target_modules": ["q_proj"]} | fields))
    before, expected = bits(model), logits(model)
    left, obstacle = merged_for_good(model)
    assert left is model
    assert says in obstacle
    assert all(torch.equal(parameter, before[name]) for name, parameter in left.named_parameters())
    assert torch.equal(logits(left), expected)
