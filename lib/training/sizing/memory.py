"""What one training process needs at its highest point, in bytes. Pure: no torch, no settings.

Counted tensor by tensor from what autograd keeps for a decoder layer under LoRA (transformers 5.23, PEFT
0.21, lib/model/expert_lora). Tests compare the count with what torch really saves, bench/memory.py the sum
with what the real command really took (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, dataclass, replace

from lib.model.architecture import Architecture
from lib.model.quantization import quantizable_share
from lib.settings.schema.model import Quantization
from lib.training.sizing.sizes import readable_bytes

LIBRARIES = 750 * 10**6
"""Resident on the CPU before any weight is there: Python, torch, transformers, TRL, MLflow and the rows.
Measured; on a GPU only what torch allocates is counted."""
DEEPSPEED = 80 * 10**6
"""The same for DeepSpeed."""
HEAP_WASTE = 0.42
"""Resident on the CPU on top of what is alive, as a share of all activations of a pass, recomputed or not:
the C library cannot reuse an aligned block for one of the same size. Measured (docs/log.md). On a GPU waste
does not count as allocated: `devices.GPU_SHARE` leaves room for it."""
LOGITS_CHUNK = {False: 96 * 2**20, True: 512 * 2**20}
SOFTMAX_STRIP = {False: 4 * 2**20, True: 128 * 2**20}
"""`head_loss.CHUNK_BYTES` and `STRIP_BYTES`, on the CPU and on a GPU."""
GRADIENT_BUCKET = 50_000_000
"""Gradients that ZeRO-2 reduces at a time (`reduce_bucket_size`); it allocates that many at every pass."""
GRADIENT_BUCKETS_GPU = 2  # with overlap_comm one is filled while the other is sent
EXPERT_RUN_VALUES = 1 << 21
"""`expert_lora.products.RUN_VALUES`: on the CPU the experts' intermediates are never larger than a run."""
MOMENTS = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0, "sgd": 0}
"""Bytes of optimizer state per weight; of the AdamW in fp32 eight."""
NF4_BYTES = {"nf4": 0.5625, "nf4-double": 0.5159}
"""Bytes a weight, scales included. Measured (docs/log.md)."""
# Families that normalise queries and keys per head.
NORMALISED_HEADS = frozenset({"qwen3", "qwen3_moe", "gemma3_text"})
GATE_UP, DOWN = frozenset({"gate_proj", "up_proj", "w1", "w3"}), frozenset({"down_proj", "w2"})


@dataclass(frozen=True, kw_only=True)
class TrainingShape:
    """What is trained, in what pieces, on what. Rows and length are those of one pass of one process."""

    architecture: Architecture
    rank: int
    targets: Collection[str]
    dropout: bool
    rows: int
    length: int
    checkpointing: bool
    weight_bytes: int
    on_gpu: bool
    processes: int
    sharded: bool
    """ZeRO-2 rather than plain data parallel."""
    attention: str
    """flash_attention_2, sdpa or eager."""
    optimizer: str = "adamw_torch"
    frozen_adapters: int = 0
    """Earlier stages kept beside the base as frozen factors of about the same rank (SFT_MERGE_MODE=stack)."""
    quantization: Quantization = "none"
    generates: bool = False
    """Whether answers are generated while training."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def trainable(self) -> int:
        return self.architecture.lora_parameters(self.rank, self.targets)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the highest point, by what they are for."""

    weights: int
    earlier: int
    """Frozen factors of earlier stages beside them, with room for the trained ones in the products."""
    adapter: int
    """Weights, gradients and optimizer state of the adapter, this process's share."""
    activations: int
    workspace: int
    """The larger of the loss's logits and what the backward of one layer takes for a while."""
    evaluation: int
    """By how much generating answers exceeds training; 0 where it does not."""
    libraries: int
    fragmentation: int

    @property
    def total(self) -> int:
        return sum(astuple(self))

    @property
    def arithmetic(self) -> str:
        parts = {
            "weights": self.weights,
            "factors of earlier stages": self.earlier,
            "adapter, gradients and optimizer": self.adapter,
            "activations": self.activations,
            "logits and workspace": self.workspace,
            "generating answers": self.evaluation,
            "libraries": self.libraries,
            "heap fragmentation": self.fragmentation,
        }
        return " + ".join(f"{name} {readable_bytes(size)}" for name, size in parts.items() if size)


def estimate_memory(shape: TrainingShape) -> MemoryEstimate:
    """The highest point is the beginning of the backward pass: all activations are kept, and the logits or
    the last layer's workspace come on top. Under checkpointing one layer at a time is kept whole."""
    architecture = shape.architecture
    sparse = layer_bytes(shape, sparse=True) if architecture.experts else 0
    dense = layer_bytes(shape, sparse=False)
    dense_layers = architecture.dense_layers if architecture.experts else architecture.layers
    sparse_layers = architecture.layers - dense_layers
    passed = kept = sparse_layers * sparse + dense_layers * dense
    if shape.checkpointing:
        kept = architecture.layers * shape.tokens * architecture.hidden * shape.weight_bytes
        kept += max(sparse, dense if dense_layers else 0)
    stacked = shape.frozen_adapters + 1 if shape.frozen_adapters else 0
    workspace = max(_loss_bytes(shape), _backward_bytes(shape))
    waste = 0 if shape.on_gpu else int(HEAP_WASTE * (passed + workspace))
    generation = _generation_bytes(shape) if shape.generates else 0
    return MemoryEstimate(
        weights=base_bytes(shape),
        earlier=stacked * shape.trainable * shape.weight_bytes,
        adapter=adapter_bytes(shape),
        activations=kept,
        workspace=workspace,
        evaluation=max(generation - kept - workspace - waste, 0),
        libraries=0 if shape.on_gpu else LIBRARIES + DEEPSPEED * shape.sharded,
        fragmentation=waste,
    )


def base_bytes(shape: TrainingShape) -> int:
    """Weights of the frozen base, as they are loaded."""
    total = shape.architecture.parameters
    if shape.quantization == "none":
        return total * shape.weight_bytes
    quantized = int(quantizable_share(shape.architecture) * total)
    return int(quantized * NF4_BYTES[shape.quantization]) + (total - quantized) * shape.weight_bytes


def adapter_bytes(shape: TrainingShape) -> int:
    """Weights, gradients and optimizer state of the adapter in one process."""
    count, moments = shape.trainable, MOMENTS.get(shape.optimizer, 8)
    if not shape.sharded:
        # fp32 throughout, beside it autocast's copy; plain data parallel sends gradients from buckets.
        copies = (4 if shape.processes > 1 else 0) + (2 if shape.weight_bytes == 2 else 0)
        return count * (4 + 4 + moments + copies)
    # Weights flat in the base's dtype, their gradients; a share of fp32 copy, gradient and moments.
    bucket = GRADIENT_BUCKETS_GPU * GRADIENT_BUCKET if shape.on_gpu else min(GRADIENT_BUCKET, count)
    own_share = count * (4 + 4 + moments) // shape.processes
    return count * 2 * shape.weight_bytes + own_share + bucket * shape.weight_bytes


def layer_bytes(shape: TrainingShape, *, sparse: bool) -> int:
    """What autograd keeps of one decoder layer between forward and backward."""
    a, d = shape.architecture, shape.weight_bytes
    per_token, once = _attention_per_token(shape), 0
    if sparse:
        per_token += _experts_per_token(shape)
    else:
        per_token += _norm(a.hidden)
    width = a.shared_intermediate if sparse else a.dense_intermediate or a.intermediate
    if width and a.experts:
        # PEFT adapts these as parameters: W + BA is formed and kept, and there is no dropout.
        shape, once = replace(shape, dropout=False, rank=0), 3 * a.hidden * width * d
    if width:
        per_token += _mlp_per_token(shape, width)
    return shape.tokens * per_token + once


def _norm(width: int, heads: int = 1) -> int:
    """RMSNorm keeps its input in fp32 and one number per row."""
    return 4 * (width + heads)


def _lora_inputs(
    shape: TrainingShape, names: Collection[str], width: int, *, kept_anyway: bool = False
) -> int:
    """What the LoRA branches of linear layers with one input keep of it, and their results of rank r.

    Without dropout they share one copy. With dropout each keeps its own, and the mask: a byte per value on a
    GPU, a number of the branch's dtype on the CPU. In bf16 under autocast, that is without ZeRO, each casts
    for itself.
    """
    count = len(set(names) & set(shape.targets))
    if not count:
        return 0
    branch_bytes = shape.weight_bytes if shape.sharded else 4
    own = width * shape.weight_bytes
    if shape.dropout:
        own += width * (1 if shape.on_gpu else branch_bytes)
    elif branch_bytes == shape.weight_bytes:
        return (0 if kept_anyway else own) + count * shape.rank * shape.weight_bytes
    return count * (own + shape.rank * shape.weight_bytes)


def _attention_per_token(shape: TrainingShape) -> int:
    a, d = shape.architecture, shape.weight_bytes
    query, key_value = a.heads * a.head_dim, a.kv_heads * a.head_dim
    kept = _norm(a.hidden) + _lora_inputs(shape, ("q_proj", "k_proj", "v_proj"), a.hidden)
    if a.family in NORMALISED_HEADS:
        kept += _norm(query, a.heads) + _norm(key_value, a.kv_heads)
    if shape.attention == "flash_attention_2":
        kept += (2 * query + 2 * key_value) * d + 4 * a.heads
    elif shape.attention == "sdpa":
        # A padding mask makes keys and values of grouped heads be repeated; the mask is kept as numbers.
        kept += 4 * query * d + 4 * a.heads + shape.length * d
    else:
        kept += 3 * query * d + a.heads * shape.length * (4 + d) + query * d
    return kept + _lora_inputs(shape, ("o_proj",), query, kept_anyway=True)


def _mlp_per_token(shape: TrainingShape, intermediate: int) -> int:
    """gate's result, its activation and up's result for the product; down's input for its LoRA."""
    a, d = shape.architecture, shape.weight_bytes
    kept = _lora_inputs(shape, ("gate_proj", "up_proj"), a.hidden) + 3 * intermediate * d
    return kept + _lora_inputs(shape, ("down_proj",), intermediate)


def _experts_per_token(shape: TrainingShape) -> int:
    """The router's scores and choices, the input, and per choice what `expert_lora.kernel` keeps: gate_up's
    result and the two of rank r. Its dropout is drawn again, its gate computed again."""
    a, d = shape.architecture, shape.weight_bytes
    router = 4 * a.experts + a.experts_per_token * (5 * 8)
    kept = _norm(a.hidden) + router
    if GATE_UP & set(shape.targets) and DOWN & set(shape.targets):
        rank = -(-shape.rank // 8) * 8 if shape.on_gpu else shape.rank
        return kept + (a.hidden + a.experts_per_token * (2 * a.intermediate + 2 * rank)) * d
    return kept + a.experts_per_token * (3 * a.intermediate + a.hidden) * d


def _loss_bytes(shape: TrainingShape) -> int:
    """As lib/model/head_loss.py states it, with every token learned."""
    a, d = shape.architecture, shape.weight_bytes
    logits = min(shape.tokens * a.vocabulary * d, LOGITS_CHUNK[shape.on_gpu])
    return logits + max(4 * a.vocabulary, SOFTMAX_STRIP[shape.on_gpu]) + 2 * shape.tokens * a.hidden * d


def _backward_bytes(shape: TrainingShape) -> int:
    """Gradients and recomputed values on the way through the widest part of one layer."""
    a, d = shape.architecture, shape.weight_bytes
    hidden = 3 * shape.tokens * a.hidden * d
    if not a.experts:
        return hidden + 4 * shape.tokens * a.intermediate * d
    rows = shape.tokens * a.experts_per_token
    if not shape.on_gpu:
        widest = max(a.hidden, 2 * a.intermediate)
        rows = min(rows, EXPERT_RUN_VALUES // widest + 2 * rows // a.experts)
    through = 5 if shape.dropout else 3
    factors = a.experts * shape.rank * (2 * a.hidden + 3 * a.intermediate)
    return hidden + rows * (through * a.hidden + 6 * a.intermediate) * d + factors * (3 * d + 4)


def _generation_bytes(shape: TrainingShape) -> int:
    """The adapter is folded into a copy of the weights, save quantised ones; on a GPU the originals wait in
    host memory."""
    if shape.on_gpu or shape.quantization != "none":
        return 0
    return shape.architecture.parameters * shape.weight_bytes
