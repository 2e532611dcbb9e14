"""What of a model or adapter from elsewhere would run code: pickles and modules. Both are refused.

A pickle (pytorch_model.bin, adapter_model.bin, .pt) can run anything when it is read. A configuration with
`auto_map` asks for the repository's own Python files. Free of torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.settings import InputError, Problem

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
PICKLED_ADAPTER = "adapter_model.bin"
# Pickled beside weights by other trainers; nothing reads them.
NO_WEIGHTS = frozenset(
    {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
)
# The pickles are read here with `weights_only`, which makes tensors and nothing else.
MODEL_TO_SAFETENSORS = (
    "import sys",
    "from transformers import AutoModelForCausalLM as Model, AutoTokenizer as Tokenizer",
    "old, new = sys.argv[1:]",
    "Model.from_pretrained(old, dtype='auto', use_safetensors=False).save_pretrained(new)",
    "Tokenizer.from_pretrained(old).save_pretrained(new)",
)
ADAPTER_TO_SAFETENSORS = (
    "import sys, torch",
    "from safetensors.torch import save_file",
    "old, new = sys.argv[1:]",
    "tensors = torch.load(old, map_location='cpu', weights_only=True)",
    "save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new)",
)


def pickled_weights(folder: Path) -> list[str]:
    """Names of pickled weight files in a folder that has no safetensors beside them."""
    if any(folder.glob("*.safetensors")):
        return []
    found = {path.name for pattern in PICKLES for path in folder.glob(pattern)}
    return sorted(found - NO_WEIGHTS)


def pickled_model(where: str, name: str, files: list[str]) -> Problem:
    """The problem of a base (folder or Hub id `name`) whose only weights are the pickles `files`."""
    converted = f"{name.rstrip('/').rsplit('/', 1)[-1]}-safetensors"
    return Problem(
        where=where,
        key="SFT_BASE_MODEL",
        value=f"{name} ({', '.join(files[:3])})",
        expected="weights as safetensors: a pickle can run any code when it is read",
        remedy=f"convert them once, then set SFT_BASE_MODEL={converted}:\n"
        + _command(MODEL_TO_SAFETENSORS, name, converted),
    )


def pickled_adapter(folder: Path, key: str) -> Problem:
    """The problem of an adapter folder with PICKLED_ADAPTER alone."""
    return Problem(
        where=str(folder),
        key=key,
        value=PICKLED_ADAPTER,
        expected="adapter_model.safetensors: a pickle can run any code when it is read",
        remedy="convert it once:\n"
        + _command(
            ADAPTER_TO_SAFETENSORS, str(folder / PICKLED_ADAPTER), str(folder / "adapter_model.safetensors")
        ),
    )


def has_pickled_adapter(folder: Path) -> bool:
    return (folder / PICKLED_ADAPTER).is_file() and not (folder / "adapter_model.safetensors").is_file()


def check_adapter_kind(config: Mapping[str, Any]) -> None:
    """ValueError for an adapter_config.json that is not of a LoRA, or names a module to import.

    Other kinds of PEFT may load further adapters from the Hub; `megatron_core` is imported by its name.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("megatron_config"):
        raise ValueError(f"its kind is {kind if kind != 'LORA' else 'megatron_config'}, not plain LoRA")


def asks_for_code(error: Exception) -> bool:
    """Whether transformers refused because of `auto_map`: it is told not to run, and not to ask."""
    return isinstance(error, ValueError) and "custom code" in str(error)


def own_code(path: str) -> InputError:
    """The error of a model or tokenizer that only its own modules can load."""
    return InputError.of(
        where="base model",
        key="SFT_BASE_MODEL",
        value=path,
        expected="a model that the installed transformers knows: this one brings Python code of its own "
        "(auto_map in its config.json or tokenizer_config.json), which is never run here",
        remedy="take a model without such code, or a newer transformers that has its class; where a class of "
        "transformers fits, delete auto_map from the file",
    )


def _command(code: Sequence[str], *arguments: str) -> str:
    """One line for a shell, whatever the arguments hold."""
    return f'python -c "{"; ".join(code)}" {shlex.join(arguments)}'
