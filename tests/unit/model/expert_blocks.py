"""One block of experts under PEFT's wrappers, with routings to send through it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import ParamWrapper
from transformers import GptOssConfig, Qwen3MoeConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from lib.model.expert_lora.plug_in import IMPLEMENTATION, SplitForward, split_experts_forward

EXPERTS, HIDDEN, INTERMEDIATE, TOKENS = 8, 32, 24, 40


def make_block(
    *, rank: int = 4, dtype: torch.dtype = torch.float32, family: str = "qwen3_moe", dropout: float = 0.0
) -> ParamWrapper:
    """Frozen random experts in `dtype` under fp32 factors that are not zero, computed in the split form."""
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, split_experts_forward)
    torch.manual_seed(5)
    sizes = {"hidden_size": HIDDEN}
    experts: Any
    if family == "gpt_oss":
        experts = GptOssExperts(
            GptOssConfig(num_local_experts=EXPERTS, intermediate_size=INTERMEDIATE, **sizes)
        )
    else:
        experts = Qwen3MoeExperts(
            Qwen3MoeConfig(num_experts=EXPERTS, moe_intermediate_size=INTERMEDIATE, **sizes)
        )
    for parameter in experts.parameters():
        parameter.data = torch.randn(parameter.shape).mul(0.2).to(dtype)
        parameter.requires_grad_(False)
    block = experts
    for name in ("gate_up_proj", "down_proj"):
        block = ParamWrapper(block, "default", name, LoraConfig(r=rank), r=rank, lora_alpha=2 * rank)
        block.lora_dropout["default"] = torch.nn.Dropout(dropout)
    for name, parameter in block.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.2
    experts.config._experts_implementation = IMPLEMENTATION
    block.forward = SplitForward(block)
    return block


def as_peft(block: ParamWrapper, dtype: torch.dtype = torch.float64) -> ParamWrapper:
    """The same block in `dtype`, computed by PEFT with transformers' plain loop."""
    copy = deepcopy(block)
    del copy.forward
    copy.get_base_layer().config = deepcopy(copy.get_base_layer().config)
    copy.get_base_layer().config._experts_implementation = "eager"
    return copy.to(dtype)


def random_routing(choices: int = 2) -> torch.Tensor:
    return torch.randn(TOKENS, EXPERTS).topk(choices).indices


def skewed_routing(choices: int = 2) -> torch.Tensor:
    """The first experts are chosen by nearly all tokens, the last by none."""
    return (torch.randn(TOKENS, EXPERTS) - 2.0 * torch.arange(EXPERTS)).topk(choices).indices


ROUTINGS: dict[str, Callable[[], torch.Tensor]] = {
    "random": random_routing,
    "skewed": skewed_routing,
    "all eight": lambda: random_routing(EXPERTS),
    "k=1": lambda: random_routing(1),
    "one expert takes all": lambda: torch.full((TOKENS, 1), 3),
    "half the experts empty": lambda: torch.randn(TOKENS, EXPERTS // 2).topk(2).indices * 2,
    "two experts, the last": lambda: torch.tensor([[6, 7]]).expand(TOKENS, 2),
}


def draw(chosen: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weights of `chosen`, and a gradient at the output."""
    hidden = torch.randn(len(chosen), HIDDEN).to(dtype)
    weights = torch.rand(chosen.shape).softmax(-1).to(dtype)
    return hidden, weights, torch.randn(len(chosen), HIDDEN).to(dtype)


def run(
    block: ParamWrapper,
    chosen: torch.Tensor,
    drawn: tuple[torch.Tensor, ...],
    dtype: torch.dtype | None = None,
    wrap: Callable[..., torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Output and gradients: of hidden states, weights and every factor."""
    hidden, weights, gradient = (tensor.to(dtype) if dtype else tensor for tensor in drawn)
    hidden, weights = hidden.clone().requires_grad_(), weights.clone().requires_grad_()
    factors = {name: p for name, p in block.named_parameters() if "lora_" in name}
    block.zero_grad()
    output = wrap(block, hidden, chosen, weights) if wrap else block(hidden, chosen, weights)
    output.backward(gradient)
    gradients = {name: p.grad.clone() for name, p in factors.items() if p.grad is not None}
    assert hidden.grad is not None
    assert weights.grad is not None
    return {"output": output.detach(), "hidden": hidden.grad, "weights": weights.grad, **gradients}


def errors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    """‖found - wanted‖ / ‖wanted‖ in float64."""
    assert found.keys() == wanted.keys()
    return {
        name: float((found[name].double() - value.double()).norm() / value.double().norm())
        for name, value in wanted.items()
    }
