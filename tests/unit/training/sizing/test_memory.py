"""The estimate against what torch keeps, tensor by tensor, and against the numbers that it is made from."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.model.architecture import Architecture, read_architecture
from lib.settings import LoraSettings
from lib.training.sizing import memory
from lib.training.sizing.memory import TrainingShape, adapter_bytes, estimate_memory, layer_bytes

TARGETS = LoraSettings().target_modules
ROWS, LENGTH, RANK = 2, 48, 8
QWEN3_30B = Architecture(
    family="qwen3_moe", hidden=2048, layers=48, heads=32, kv_heads=4, head_dim=128, intermediate=768,
    experts=128, experts_per_token=8, vocabulary=151_936, tied=False, bytes_per_weight=2,
)  # fmt: skip
ON_ONE_GPU = TrainingShape(
    architecture=QWEN3_30B, rank=8, targets=TARGETS, dropout=False, rows=1, length=4096, checkpointing=False,
    weight_bytes=2, on_gpu=True, processes=1, sharded=True, attention="flash_attention_2",
)  # fmt: skip


def test_constants_that_are_said_twice_agree() -> None:
    """The plan loads no torch, so it cannot ask the modules that compute."""
    from lib.model import head_loss
    from lib.model.expert_lora import products

    assert products.RUN_VALUES == memory.EXPERT_RUN_VALUES
    for kind, on_gpu in (("cpu", False), ("cuda", True)):
        assert head_loss.CHUNK_BYTES[kind] == memory.LOGITS_CHUNK[on_gpu]
        assert head_loss.STRIP_BYTES[kind] == memory.SOFTMAX_STRIP[on_gpu]


ATTENTION = ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("family", "mode", "dropout", "targets"),
    [
        ("qwen3_moe", "fp32", 0.05, TARGETS),
        ("qwen3_moe", "bf16 sharded", 0.0, TARGETS),
        ("qwen3_moe", "bf16 autocast", 0.0, TARGETS),
        ("qwen3_moe", "fp32", 0.0, ATTENTION),
        ("qwen3", "fp32", 0.05, TARGETS),
        ("qwen3", "fp32", 0.0, TARGETS),
        ("qwen3", "bf16 sharded", 0.05, TARGETS),
        ("mixtral", "fp32", 0.0, TARGETS),
        ("qwen2_moe", "fp32", 0.05, TARGETS),
    ],
)
def test_a_layer_keeps_what_is_counted(
    family: str, mode: str, dropout: float, targets: tuple[str, ...], tiny_model: Callable[..., Path]
) -> None:
    """Three layers less two: what one adds. In bf16 the CPU pads the rows of experts, and autocast keeps
    copies of the factors: a few per cent at these tiny sizes."""
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96}
    folders = [tiny_model(family, num_hidden_layers=layers, **sizes) for layers in (2, 3)]
    kept = [_bytes_kept(folder, mode, dropout, targets) for folder in folders]
    architecture = read_architecture(folders[0])
    assert architecture is not None
    shape = TrainingShape(
        architecture=architecture,
        rank=RANK,
        targets=targets,
        dropout=dropout > 0,
        rows=ROWS,
        length=LENGTH,
        checkpointing=False,
        weight_bytes=4 if mode == "fp32" else 2,
        on_gpu=False,
        processes=1,
        sharded=mode == "bf16 sharded",
        attention="sdpa",
    )
    counted = layer_bytes(shape, sparse=bool(architecture.experts))
    assert counted == pytest.approx(kept[1] - kept[0], rel=0.02 if mode == "fp32" else 0.12)


def _bytes_kept(folder: Path, mode: str, dropout: float, targets: tuple[str, ...]) -> int:
    """Of all storages that a forward leaves to its backward, those of the model left out."""
    import torch
    from transformers import AutoModelForCausalLM

    from lib.model.adapter import attach_lora
    from lib.model.targets import find_targets

    dtype = torch.float32 if mode == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False)
    lora = LoraSettings(rank=RANK, dropout=dropout)
    peft_model, _ = attach_lora(model, find_targets(model, targets), lora, seed=1)
    if mode == "bf16 sharded":
        peft_model.to(dtype)  # as DeepSpeed does
    peft_model.train()
    own = {t.untyped_storage().data_ptr() for t in (*peft_model.parameters(), *peft_model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) % 60
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    casting = torch.autocast("cpu", dtype) if mode == "bf16 autocast" else nullcontext()
    with casting, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        peft_model.base_model.model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


def test_the_parts_are_the_whole() -> None:
    estimate = estimate_memory(replace(ON_ONE_GPU, on_gpu=False, generates=True))
    parts = (
        estimate.weights, estimate.adapter, estimate.activations,
        estimate.workspace, estimate.evaluation, estimate.libraries, estimate.fragmentation,
    )  # fmt: skip
    assert estimate.total == sum(parts)
    assert estimate.arithmetic.startswith("weights 61.1 GB + adapter, gradients and optimizer ")


def test_a_30b_model_on_one_gpu() -> None:
    """By hand, r=8, bf16, no dropout, flash attention. A token keeps in one layer: two norms, 16,392 bytes;
    those of queries and keys, 18,576; queries, keys, values and output, 18,432, and 128 of sums; the inputs
    of q, k, v and of the experts, 8,192; of 8 experts' rows 8 · (1,536 + 16) · 2 = 24,832; the router 832;
    and four results of rank 8, 64 bytes."""
    estimate = estimate_memory(ON_ONE_GPU)
    assert estimate.weights == 2 * QWEN3_30B.parameters
    by_hand = 16_392 + 18_576 + 18_432 + 128 + 8_192 + 24_832 + 832 + 64
    assert estimate.activations == 4096 * 48 * by_hand
    assert estimate.libraries == estimate.fragmentation == 0
    recomputed = estimate_memory(replace(ON_ONE_GPU, checkpointing=True))
    assert recomputed.activations == 4096 * (48 * 2048 * 2 + by_hand)


def test_what_sharding_divides() -> None:
    """Weights and gradients in bf16 stay whole; fp32 copy, gradient and two moments are shared out."""
    count = ON_ONE_GPU.trainable
    one, four = (adapter_bytes(replace(ON_ONE_GPU, processes=n)) for n in (1, 4))
    assert one - four == 16 * count - 16 * count // 4
    plain = replace(ON_ONE_GPU, weight_bytes=4, sharded=False, on_gpu=False)
    assert adapter_bytes(plain) == 16 * count
    assert adapter_bytes(replace(plain, processes=2)) == 20 * count
    assert adapter_bytes(replace(plain, optimizer="sgd")) == 8 * count


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"rows": 2}, True),
        ({"length": 8192}, True),
        ({"rank": 16}, True),
        ({"dropout": True}, True),
        ({"frozen_adapters": 2}, True),
        ({"quantization": "nf4"}, False),
        ({"attention": "sdpa"}, True),
        ({"attention": "eager"}, True),
        ({"checkpointing": True}, False),
        ({"optimizer": "adamw_8bit"}, False),
        ({"targets": ("gate_proj", "up_proj", "down_proj")}, False),
        ({"processes": 8}, False),
    ],
)
def test_what_takes_more_and_what_less(change: dict[str, Any], more: bool) -> None:
    before, after = estimate_memory(ON_ONE_GPU).total, estimate_memory(replace(ON_ONE_GPU, **change)).total
    assert (after > before) == more
    assert after != before
