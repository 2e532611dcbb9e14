"""A Qwen3-MoE of random weights, made on the device it is to run on, with a LoRA as ZeRO-2 trains it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from lib.model.adapter import attach_lora
from lib.model.architecture import Architecture
from lib.model.targets import find_targets
from lib.settings import LoraSettings
from lib.training.loss import LabelledLoss


def random_moe(sizes: Architecture, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    config = Qwen3MoeConfig(
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        intermediate_size=sizes.intermediate,
        moe_intermediate_size=sizes.intermediate,
        num_experts=sizes.experts,
        num_experts_per_tok=sizes.experts_per_token,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=32_768,
        tie_word_embeddings=sizes.tied,
    )
    torch.manual_seed(0)
    with device:
        model = Qwen3MoeForCausalLM._from_config(config, dtype=dtype, attn_implementation=attention)
    return model.requires_grad_(False)


class LoraStep:
    """One training step on packed rows: loss of all tokens, backward, AdamW on fp32 copies of the factors."""

    def __init__(self, model: Any, rank: int) -> None:
        lora = LoraSettings(rank=rank, alpha=2 * rank, dropout=0.0)
        dtype = model.dtype
        self.model, self.census = attach_lora(model, find_targets(model, lora.target_modules), lora, seed=0)
        self.factors = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for factor in self.factors:
            factor.data = factor.data.to(dtype)
        self.copies = [factor.detach().float().requires_grad_() for factor in self.factors]
        self.optimizer = torch.optim.AdamW(self.copies, lr=1e-4, fused=model.device.type == "cuda")
        self.model.train()
        self.loss = LabelledLoss(self.model)

    def recompute(self, wanted: bool) -> None:
        if wanted:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor) -> float:
        """`ids` and `positions` are (1, tokens); a row begins wherever a position is 0."""
        losses = self.loss(input_ids=ids, position_ids=positions, labels=ids).losses
        losses.mean().backward()
        for copy, factor in zip(self.copies, self.factors, strict=True):
            assert factor.grad is not None
            copy.grad, factor.grad = factor.grad.float(), None
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for copy, factor in zip(self.copies, self.factors, strict=True):
                factor.copy_(copy)
        return float(losses.detach().mean())


def packed_rows(
    rows: int, length: int, vocabulary: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids of `rows` rows in one sequence, positions restarting with each."""
    generator = torch.Generator().manual_seed(rows * length)
    ids = torch.randint(vocabulary, (1, rows * length), generator=generator)
    return ids.to(device), torch.arange(length).repeat(rows)[None].to(device)
