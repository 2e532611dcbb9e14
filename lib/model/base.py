"""Loads a base model: where from, in which precision, with which attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.model.merge_proof import proof_line
from lib.model.sentencepiece_tokenizer import missing_readers, with_own_unknown_token
from lib.settings import InputError, ModelSettings

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
class StageBase:
    """The base that a stage trains on. `merged` is false for the stage-0 base itself; `seconds` is
    what merging took, `proof` what it did to the weights (`merge_proof.summarise`)."""

    path: str
    revision: str
    stage0: str
    merged: bool
    reused: bool
    seconds: float
    proof: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()

    def line(self) -> str:
        if not self.merged:
            return f"  base {self.path}"
        how = (
            "found, built earlier from the same content" if self.reused else f"merged in {self.seconds:.1f} s"
        )
        return f"  base {self.path} ({how}{': ' + proof_line(self.proof) if self.proof else ''})"


def choose_compute(model: ModelSettings) -> ComputeChoice:
    """Resolve SFT_DTYPE and SFT_ATTENTION for this machine.

    bf16 needs a GPU that has it: on most CPUs bf16 products are emulated and slower than fp32.
    Raises InputError when flash attention is demanded and cannot work.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    bf16_ready = on_gpu and torch.cuda.is_bf16_supported()
    chosen = {"bf16": torch.bfloat16, "fp32": torch.float32}.get(model.dtype)
    if chosen is None:
        chosen = torch.bfloat16 if bf16_ready else torch.float32
    implementation, why = _choose_attention(model.attention, on_gpu=on_gpu, half=chosen == torch.bfloat16)
    return ComputeChoice(chosen, implementation, why)


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
        return f"flash-attn does not load with this torch ({error})"
    return ""


def load_base(base: StageBase, compute: ComputeChoice, *, on_gpu: bool) -> PreTrainedModel:
    """The stage's base, ready to get an adapter: every parameter frozen.

    Raises InputError when there is no such model here and it cannot be fetched.
    """
    import torch

    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    model = load_model(
        base.path, base.revision, dtype=compute.dtype, attention=compute.attention, device=device
    )
    return model.requires_grad_(False)


def load_model(
    path: str, revision: str, *, dtype: torch.dtype, attention: str, device: torch.device
) -> PreTrainedModel:
    """The causal language model at `path` (folder or Hub id).

    Only safetensors weights are read, and no code from the model's repository is run.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision or None,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            device_map={"": device} if device.type != "cpu" else None,
        )
    except (OSError, ValueError) as error:
        raise base_error(path, error) from error


def load_tokenizer(model: ModelSettings) -> PreTrainedTokenizerBase:
    """The tokenizer beside the base. Raises InputError when it cannot be read, and for a missing package."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.base_model, revision=model.base_revision or None)
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


def base_error(path: str, error: Exception) -> InputError:
    """The user's view of what transformers raises when a model or tokenizer cannot be loaded."""
    first_line = next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )
    local = Path(path).exists()
    return InputError.of(
        where="base model",
        key="SFT_BASE_MODEL",
        value=path,
        expected=f"a model folder or a Hub id that can be read ({first_line})",
        remedy="look at what the folder lacks: config.json, tokenizer.json and *.safetensors are needed"
        if local
        else "give the path of a model folder, or an id that is in the Hub cache or can be downloaded "
        "(a gated model needs HF_TOKEN)",
    )
