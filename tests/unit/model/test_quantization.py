"""Frozen layers in nf4 by the real bitsandbytes, on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.adapter import attach_lora
from lib.model.architecture import read_architecture
from lib.model.base import ComputeChoice, StageBase, load_base
from lib.model.merged_weights import temporarily_merged
from lib.model.quantization import is_quantized, quantizable_share, weights_in
from lib.model.targets import find_targets
from lib.settings import LoraSettings

DENSE = ("gemma2", "qwen3")
Quantized = Callable[..., Any]


@pytest.fixture
def quantized(tiny_model: Callable[..., Path]) -> Quantized:
    """quantized("gemma2"): the model as a stage loads it, in eager attention."""

    def load(family: str, quantization: Any = "nf4-double", dtype: str = "float32", **sizes: Any) -> Any:
        import torch

        folder = str(tiny_model(family, **({"hidden_size": 64} | sizes)))
        base = StageBase(folder, "", folder, False, False, 0.0, quantization=quantization)
        return load_base(base, ComputeChoice(getattr(torch, dtype), "eager", ""), on_gpu=False)

    return load


@pytest.fixture
def adapted(quantized: Quantized) -> Quantized:
    """The same under an adapter on everything that does something, with its census."""

    def attach(family: str, **options: Any) -> tuple[Any, Any]:
        import torch

        model = quantized(family, **options)
        lora = LoraSettings(rank=4, alpha=8.0, dropout=0.1, target_modules=("all-linear",))
        peft_model, census = attach_lora(model, find_targets(model, lora.target_modules), lora, seed=3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in peft_model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return peft_model.eval(), census

    return attach


@pytest.mark.parametrize("family", DENSE)
def test_linear_layers_are_packed_and_head_embeddings_and_norms_are_not(
    family: str, quantized: Quantized
) -> None:
    import torch

    model = quantized(family)
    packed = {name for name, parameter in model.named_parameters() if is_quantized(parameter)}
    assert packed == {name for name, _ in model.named_parameters() if "_proj" in name}
    rest = [p.dtype for name, p in model.named_parameters() if name not in packed]
    assert set(rest) == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_double_quantisation_takes_a_little_less_than_plain_nf4(quantized: Quantized) -> None:
    """0.5 bytes a weight; scales of 64 weights in fp32, or in 8 bits with one fp32 scale for 256 of them."""
    states = {
        kind: quantized("qwen3", kind, intermediate_size=512).model.layers[0].mlp.up_proj.weight
        for kind in ("nf4", "nf4-double")
    }
    assert {weights_in(weight) for weight in states.values()} == {64 * 512}
    assert {weight.nbytes for weight in states.values()} == {64 * 512 // 2}
    assert states["nf4"].quant_state.absmax.nbytes == 4 * 512
    assert states["nf4-double"].quant_state.absmax.nbytes == 512


def test_norms_compute_in_fp32_and_hand_on_what_they_got(quantized: Quantized) -> None:
    import torch

    model = quantized("qwen3", dtype="bfloat16")
    norm = model.model.norm
    hidden = torch.randn(2, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    norm.weight.data = torch.linspace(0.5, 1.5, 64)
    exact = (
        norm.weight
        * hidden.float()
        * torch.rsqrt(hidden.float().pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    )
    assert norm(hidden).dtype == torch.bfloat16
    assert torch.equal(norm(hidden), exact.bfloat16())
    norm.to(torch.bfloat16)  # as DeepSpeed does
    norm(hidden)
    assert norm.weight.dtype == torch.float32


@pytest.mark.parametrize("family", DENSE)
def test_gradients_reach_the_first_layer_after_an_evaluation_too(family: str, adapted: Quantized) -> None:
    """bitsandbytes would leave the weights in a form that has no gradients, on some CPUs."""
    import torch

    model, _ = adapted(family)
    ids = torch.arange(4, 30)[None]

    def gradients() -> list[Any]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    expected = gradients()
    with torch.no_grad():
        model(input_ids=ids)
    assert all(map(torch.equal, gradients(), expected))
    assert all(gradient.any() for gradient in expected)


@pytest.mark.parametrize("family", DENSE)
def test_the_adapter_is_not_folded_into_packed_weights(family: str, adapted: Quantized) -> None:
    """Folded and packed again it would be another model."""
    import torch

    model, _ = adapted(family)
    ids = torch.arange(4, 30)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        codes = {name: p.data.clone() for name, p in model.named_parameters()}
        with temporarily_merged(model):
            folded = model(input_ids=ids).logits
            assert all(torch.equal(p.data, codes[name]) for name, p in model.named_parameters())
        with model.disable_adapter():
            without = model(input_ids=ids).logits
    assert torch.equal(before, folded)
    assert (before - without).abs().max() > 0.01


def test_the_census_counts_weights_not_bytes(
    adapted: Quantized, quantized: Quantized, tiny_model: Callable[..., Path]
) -> None:
    _, census = adapted("gemma2")
    plain = quantized("gemma2", "none")
    weights = {name: parameter.numel() for name, parameter in plain.named_parameters()}
    assert census.frozen == sum(weights.values())
    assert census.quantized == sum(count for name, count in weights.items() if "_proj" in name)
    assert f"{census.quantized / census.frozen:.1%} of the base in four bits" in census.line()
    assert census.notices == ()
    architecture = read_architecture(tiny_model("gemma2", hidden_size=64))
    assert architecture is not None
    assert quantizable_share(architecture) == pytest.approx(census.quantized / census.frozen, abs=0.03)


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_moe_mixed", "qwen2_moe", "mixtral"])
def test_experts_stay_as_they_are_and_that_is_said(family: str, adapted: Quantized) -> None:
    """They are trained all the same, with the dense layers beside them."""
    model, census = adapted(family)
    packed = {name for name, parameter in model.named_parameters() if is_quantized(parameter)}
    assert packed
    assert all("self_attn" in name for name in packed)
    assert census.experts
    (notice,) = [notice for notice in census.notices if "SFT_QUANTIZATION" in notice]
    assert notice.startswith("[WARNING]")
    assert f"{census.quantized / census.frozen:.1%}" in notice


def test_sizes_of_a_model_with_experts(tiny_model: Callable[..., Path], quantized: Quantized) -> None:
    architecture = read_architecture(tiny_model("qwen3_moe", hidden_size=64))
    assert architecture is not None
    model = quantized("qwen3_moe")
    packed = sum(weights_in(p) for p in model.parameters() if is_quantized(p))
    total = sum(weights_in(p) for p in model.parameters())
    assert quantizable_share(architecture) == pytest.approx(packed / total, abs=0.03)
