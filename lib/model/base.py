"""Loads a base model: where from, in which precision, with which attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lib.failures.explain import known
from lib.failures.known import FLASH_ATTENTION
from lib.model.architecture import caps_attention_logits
from lib.model.base_files import base_error, base_folder
from lib.model.merge_proof import proof_line
from lib.model.quantization import loaded_as, prepare_quantized, quantization_config
from lib.model.sentencepiece_tokenizer import missing_readers, with_own_unknown_token
from lib.settings import InputError, ModelSettings
from lib.settings.schema.model import Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ComputeChoice:
    """Precision and attention that a stage computes with, and why (`reason` is said once)."""

    dtype: torch.dtype
    attention: str
    reason: str

    def line(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"  computes in {dtype}, attention {self.attention} ({self.reason})"


@dataclass(frozen=True)
class StackedAdapters:
    """Adapters of earlier stages that stay beside the weights of the base, frozen, instead of being
    merged."""

    folders: tuple[str, ...]
    """Oldest first."""
    targets: int
    """Weights of the model that they act on."""
    parameters: int
    adapter_tensors_used: int

    def line(self) -> str:
        stages = f"{len(self.folders)} earlier stage{'' if len(self.folders) == 1 else 's'}"
        return (
            f"what {stages} added stays beside the weights, unmerged: {self.parameters:,} frozen parameters "
            f"in {self.targets} targets"
        )


@dataclass(frozen=True)
class StageBase:
    """The base that a stage trains on. `merged` is false for the stage-0 base itself; `seconds` is
    what merging took, `proof` what it did to the weights (`merge_proof.summarise`). `stacked` is what
    stands beside the weights of the stage-0 base, `mode` is SFT_MERGE_MODE. The files at `path` are never
    quantised; `quantization` says how they are loaded."""

    path: str
    revision: str
    stage0: str
    merged: bool
    reused: bool
    seconds: float
    proof: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()
    mode: Literal["merge", "stack"] = "merge"
    stacked: StackedAdapters | None = None
    quantization: Quantization = "none"

    def line(self) -> str:
        if not self.merged:
            beside = f" ({self.stacked.line()})" if self.stacked else ""
            return f"  base {self.path}{loaded_as(self.quantization)}{beside}"
        how = (
            "found, built earlier from the same content" if self.reused else f"merged in {self.seconds:.1f} s"
        )
        if self.quantization != "none":
            how += f"; merged into the unquantised weights{loaded_as(self.quantization)}"
        return f"  base {self.path} ({how}{': ' + proof_line(self.proof) if self.proof else ''})"


def choose_compute(model: ModelSettings) -> ComputeChoice:
    """Resolve SFT_DTYPE and SFT_ATTENTION for this machine.

    bf16 needs a GPU that has it: on most CPUs bf16 products are emulated and slower than fp32.
    Raises InputError when an attention is demanded that cannot work here or with this model.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    bf16_ready = on_gpu and torch.cuda.is_bf16_supported()
    chosen = {"bf16": torch.bfloat16, "fp32": torch.float32}.get(model.dtype)
    if chosen is None:
        chosen = torch.bfloat16 if bf16_ready else torch.float32
    folder = base_folder(model)
    capped = folder is not None and caps_attention_logits(folder)
    if capped and model.attention != "flash_attention_2":
        return ComputeChoice(chosen, "eager", _why_eager(model.attention))
    implementation, why = _choose_attention(model.attention, on_gpu=on_gpu, half=chosen == torch.bfloat16)
    return ComputeChoice(chosen, implementation, why)


def _why_eager(requested: str) -> str:
    """Flash attention can cap the logits too, and is taken when it is demanded; SDPA cannot."""
    if requested == "sdpa":
        raise InputError.of(
            where="settings",
            key="SFT_ATTENTION",
            value=requested,
            expected="eager, or flash_attention_2 on a GPU: this model caps attention logits, SDPA cannot",
            remedy="set SFT_ATTENTION=auto, which takes eager for such a model",
        )
    return (
        "SFT_ATTENTION=eager" if requested == "eager" else "this model caps its attention logits, SDPA cannot"
    )


def _choose_attention(requested: str, *, on_gpu: bool, half: bool) -> tuple[str, str]:
    if requested in {"sdpa", "eager"}:
        return requested, f"SFT_ATTENTION={requested}"
    obstacle = _flash_attention_obstacle(on_gpu=on_gpu, half=half)
    if not obstacle:
        return "flash_attention_2", "flash-attn imports and the GPU supports it"
    if requested == "flash_attention_2":
        raise InputError.of(
            where="settings",
            key="SFT_ATTENTION",
            value=requested,
            expected=f"a machine where flash attention works; here {obstacle}",
            remedy="set SFT_ATTENTION=auto, which falls back to sdpa, or install requirements-gpu.txt",
        )
    return "sdpa", f"no flash attention: {obstacle}"


def _flash_attention_obstacle(*, on_gpu: bool, half: bool) -> str:
    import torch

    if not on_gpu:
        return "there is no CUDA device"
    if not half:
        return "it computes in bf16 or fp16 only, and this stage computes in fp32"
    if torch.cuda.get_device_capability() < (8, 0):
        return "this GPU is older than Ampere (compute capability 8.0)"
    if importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed (requirements-gpu.txt)"
    try:
        importlib.import_module("flash_attn")  # the import is the test: its binary may not fit this torch
    except (ImportError, OSError) as error:
        return f"flash-attn does not load with this torch ({error}): {known(FLASH_ATTENTION).remedy}"
    return ""


def load_base(base: StageBase, compute: ComputeChoice, *, on_gpu: bool) -> PreTrainedModel:
    """The stage's base, ready to get an adapter: every parameter frozen.

    Raises InputError when there is no such model here and it cannot be fetched.
    """
    import torch

    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    model = load_model(
        base.path,
        base.revision,
        dtype=compute.dtype,
        attention=compute.attention,
        device=device,
        quantization=base.quantization,
    )
    return model.requires_grad_(False)


def load_model(
    path: str,
    revision: str,
    *,
    dtype: torch.dtype,
    attention: str | None,
    device: torch.device,
    quantization: Quantization = "none",
) -> PreTrainedModel:
    """The causal language model at `path` (folder or Hub id). Without `attention` transformers chooses.

    Only safetensors weights are read, and no code from the model's repository is run.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    quantized = quantization != "none"
    try:
        # False, not left out: transformers would ask on the terminal whether to run the model's code.
        config = AutoConfig.from_pretrained(path, revision=revision or None, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision or None,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            device_map={"": device} if quantized or device.type != "cpu" else None,
            quantization_config=quantization_config(quantization, config, dtype),
        )
    except (OSError, ValueError) as error:
        raise base_error(path, error) from error
    if quantized:
        prepare_quantized(model)
    return model


def load_tokenizer(model: ModelSettings) -> PreTrainedTokenizerBase:
    """The tokenizer beside the base. Raises InputError when it cannot be read, and for a missing package."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.base_model, revision=model.base_revision or None, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        missing = missing_readers(error)
        raise (
            _missing_packages(model.base_model, missing) if missing else base_error(model.base_model, error)
        ) from error
    return with_own_unknown_token(tokenizer)


def _missing_packages(path: str, packages: Sequence[str]) -> InputError:
    names = " and ".join(packages)
    return InputError.of(
        where="tokenizer of the base model",
        key="SFT_BASE_MODEL",
        value=path,
        expected=f"{names} to be installed: this tokenizer is a SentencePiece model, read with it",
        remedy=f"pip install {' '.join(packages)}",
    )
