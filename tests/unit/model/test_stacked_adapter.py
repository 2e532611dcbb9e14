"""Several adapters as one: the same logits through plain PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lib.model.stacked_adapter import stack_adapters
from lib.settings import InputError

ATTENTION, EXPERTS, DOWN = ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"), ("down_proj",)
FP32_ROUNDING = 2e-5


def summed(load: Callable[[Path], Any], base: Path, adapters: list[Path]) -> Any:
    """Base + sum of the updates, each as PEFT itself merges it into the untouched base in fp32."""
    before = {name: weight.clone() for name, weight in load(base).state_dict().items()}
    total = {name: weight.clone() for name, weight in before.items()}
    for adapter in adapters:
        after = PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
        for name in total:
            total[name] += after[name] - before[name]
    model = load(base)
    model.load_state_dict(total)
    return model


CASES = [
    ("qwen3_moe", [(ATTENTION, {}), (EXPERTS, {})]),
    ("qwen3_moe", [(DOWN, {}), ((*ATTENTION, *EXPERTS), {"rank": 2, "alpha": 3.0})]),
    ("qwen3_moe", [(EXPERTS, {"rank": 3, "alpha": 7.0}), (DOWN, {"rank": 5}), (ATTENTION, {"alpha": 2.0})]),
    ("qwen3_moe_mixed", [((*ATTENTION, *EXPERTS), {}), (EXPERTS, {"rank": 8, "alpha": 1.0})]),
    ("qwen2_moe", [(EXPERTS, {}), ((*ATTENTION, *EXPERTS), {"alpha": 6.0})]),
    ("mixtral", [((*ATTENTION, "w1", "w2", "w3"), {}), (("w2",), {"rank": 2})]),
    ("qwen3", [((*ATTENTION, *EXPERTS), {}), (("o_proj",), {"rank": 7, "alpha": 5.0})]),
    ("qwen3", [(ATTENTION, {})]),
]


@pytest.mark.parametrize(("family", "stages"), CASES)
def test_logits_are_those_of_base_and_all_adapters(
    family: str,
    stages: list[tuple[Any, dict[str, Any]]],
    tiny_model: Any,
    make_adapter: Any,
    load: Any,
    logits: Any,
    model_settings: Any,
    tmp_path: Path,
) -> None:
    base = tiny_model(family)
    adapters = [
        make_adapter(base, number, requested, **lora) for number, (requested, lora) in enumerate(stages, 1)
    ]
    stack_adapters(model_settings(base), adapters, tmp_path / "stacked")
    one = PeftModel.from_pretrained(load(base), tmp_path / "stacked")
    exact = logits(summed(load, base, adapters))
    assert (logits(one) - exact).abs().max() < FP32_ROUNDING * exact.abs().max()
    for adapter in adapters if len(adapters) > 1 else ():
        alone = logits(PeftModel.from_pretrained(load(base), adapter))
        assert (alone - exact).abs().max() > 100 * FP32_ROUNDING * exact.abs().max()


def test_the_result_is_a_plain_adapter_on_the_untouched_base(
    tiny_model: Any, make_adapter: Any, model_settings: Any, tmp_path: Path
) -> None:
    base = tiny_model("qwen3_moe")
    adapters = [make_adapter(base, 1, ATTENTION, rank=2), make_adapter(base, 2, (*ATTENTION, *EXPERTS))]
    assert stack_adapters(model_settings(base), adapters, tmp_path / "stacked") == 6
    config = json.loads((tmp_path / "stacked" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (6, 6, True)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["target_parameters"] == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    assert config["base_model_name_or_path"] == str(base)
    assert sorted(path.name for path in (tmp_path / "stacked").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize(("alpha", "dtype"), [(8.0, torch.bfloat16), (6.0, torch.float32)])
def test_factors_stay_in_bf16_only_where_that_is_exact(
    alpha: float, dtype: torch.dtype, tiny_model: Any, make_adapter: Any, model_settings: Any, tmp_path: Path
) -> None:
    """A scaling that is a power of two costs no bit; 1.5 does."""
    base = tiny_model("qwen3")
    adapters = [make_adapter(base, stage, ATTENTION, "bf16", rank=4, alpha=alpha) for stage in (1, 2)]
    stack_adapters(model_settings(base), adapters, tmp_path / "stacked")
    tensors = load_file(tmp_path / "stacked" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}


@pytest.mark.parametrize("change", ["gone", "extra", "shape"])
def test_an_adapter_that_does_not_fit_is_named(
    change: str, tiny_model: Any, make_adapter: Any, model_settings: Any, tmp_path: Path
) -> None:
    base = tiny_model("qwen3")
    adapter = make_adapter(base, 1, ATTENTION)
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = min(tensors)
    if change == "gone":
        del tensors[first]
    elif change == "extra":
        tensors["base_model.model.lm_head.weight"] = torch.zeros(2)
    else:
        tensors[first] = tensors[first][:1]
    save_file(tensors, weights)
    with pytest.raises(InputError, match="lora_stage1"):
        stack_adapters(model_settings(base), [adapter], tmp_path / "stacked")
    assert not (tmp_path / "stacked").exists()
