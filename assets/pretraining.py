"""Data-parallel pretraining of the tiny base on the CPU: resumable, data fixed by seed and process count."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from assets.muon import StackedMuon
from assets.tiny_tokenizer import PAD, token_id
from data.documents import pretraining_text


@dataclass(frozen=True)
class Recipe:
    """How the base is pretrained; lengths in tokens, `rows` per process and step."""

    seed: int = 1
    steps: int = 1150
    chat_steps: int = 140
    rows: int = 10
    length: int = 384
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    final_share: float = 0.05
    chat_share: float = 0.4
    decay: float = 0.5
    warmup: int = 30
    weight_decay: float = 0.05
    clip: float = 1.0
    experts: str = "grouped_mm"
    save_seconds: float = 120.0


SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "max_position_embeddings": 1024,
}
"""Every feature size is a multiple of 8, as grouped bf16 products require."""


def tiny_config(vocabulary: int, pad: int, end: int) -> Qwen3MoeConfig:
    """A Qwen3-MoE in miniature."""
    return Qwen3MoeConfig(
        **SHAPE,
        vocab_size=vocabulary,
        norm_topk_prob=True,
        router_aux_loss_coef=0.01,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        initializer_range=0.04,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=end,
        bos_token_id=None,
    )


def schedule(recipe: Recipe, step: int) -> float:
    """The share of the peak learning rate: linear warmup, constant, then linear down to `final_share`.

    The closing chat steps go from `chat_share` down to zero. Nothing before the decay depends on `steps`: a
    run can be lengthened or cut short until the decay begins.
    """
    if step >= recipe.steps:
        return recipe.chat_share * (1 - (step - recipe.steps) / recipe.chat_steps)
    decay_from = recipe.steps - int(recipe.steps * recipe.decay)
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = max(0, step - decay_from) / (recipe.steps - decay_from)
    return 1 - (1 - recipe.final_share) * progress


def batch(recipe: Recipe, tokenizer: Tokenizer, step: int, rank: int) -> torch.Tensor:
    """Packed text `[rows, length]`, by seed, step and rank only, so that a resumed run sees the same."""
    rng = random.Random(f"{recipe.seed}/{step}/{rank}")
    end = token_id(tokenizer, PAD)
    wanted = recipe.rows * recipe.length
    tokens: list[int] = []
    while len(tokens) < wanted:
        tokens += [*tokenizer.encode(pretraining_text(rng, chatty=step >= recipe.steps)).ids, end]
    return torch.tensor(tokens[:wanted]).view(recipe.rows, recipe.length)


def optimizers_of(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for attention and experts; AdamW for embeddings, routers and gains."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() > 1 and "embed" not in name and not name.endswith("mlp.gate.weight")
        (matrices if is_matrix else others).append(parameter)
    return [
        StackedMuon(matrices, lr=recipe.muon_lr, momentum=0.95, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def average_gradients(model: torch.nn.Module) -> None:
    """One all-reduce for all gradients: on loopback the number of messages costs more than their size."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def save_checkpoint(
    path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], step: int
) -> None:
    """Renamed into place, so that a reader or a crash never meets half a file."""
    partial = path.with_suffix(".partial")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": states, "step": step}, partial)
    partial.rename(path)


def pretrain(
    recipe: Recipe, config: Qwen3MoeConfig, tokenizer: Tokenizer, work_dir: Path
) -> Qwen3MoeForCausalLM:
    """Train to the end of the chat steps, from the checkpoint in `work_dir` if there is one."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(recipe.seed)
    model = Qwen3MoeForCausalLM(config)
    model.set_experts_implementation(recipe.experts)
    optimizers = optimizers_of(model, recipe)
    path, start = work_dir / "checkpoint.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        start = saved["step"]
    saved_at = began = time.monotonic()
    total = recipe.steps + recipe.chat_steps
    for step in range(start, total):
        loss = train_step(recipe, model, optimizers, batch(recipe, tokenizer, step, rank), step)
        if rank == 0 and (step % 10 == 0 or step + 1 == total):
            done = (step + 1 - start) * world * recipe.rows * recipe.length
            seconds = time.monotonic() - began
            report = f"step {step} loss {loss:.4f} tokens/s {done / seconds:.0f} seconds {seconds:.0f}"
            with (work_dir / "pretraining.log").open("a") as log:
                print(report, file=log)
        if rank == 0 and (time.monotonic() - saved_at > recipe.save_seconds or step + 1 == total):
            save_checkpoint(path, model, optimizers, step + 1)
            saved_at = time.monotonic()
    return model


def train_step(
    recipe: Recipe,
    model: Qwen3MoeForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    tokens: torch.Tensor,
    step: int,
) -> float:
    """One optimizer step; the loss of this process in nats per token, the small balancing loss included."""
    loss = model(input_ids=tokens, labels=tokens, output_router_logits=True, use_cache=False).loss
    loss.backward()
    average_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * schedule(recipe, step)
        optimizer.step()
        optimizer.zero_grad()
    return float(loss)
