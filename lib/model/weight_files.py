"""Where the weights of a model or an adapter lie on disk: safetensors headers, read without their data.

The format: eight bytes that hold the header's length (little-endian), the header as JSON, then the values of
all tensors (https://huggingface.co/docs/safetensors). Free of torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.files import parse_json, read_json
from lib.model.foreign_code import pickled_model, pickled_weights
from lib.settings import InputError

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
# Bytes of one value, by the format's name of its type.
VALUE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: `length` bytes from byte `start` on. `dtype` is the format's name: BF16, F32, …"""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model folder. `shards` in the order of their names."""

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @property
    def bytes(self) -> int:
        return sum(shard.stat().st_size for shard in self.shards)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The weights of the model in `folder`: `model.safetensors`, else the shards that the index names.

    Raises InputError when configuration or weights are missing, damaged or cut short.
    """
    shards = weight_shards(folder)
    try:
        config = read_json(folder / "config.json")
        tensors = {name: tensor for shard in shards for name, tensor in read_header(shard).items()}
        absent = _indexed_names(folder).keys() - tensors.keys()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, str(error)) from error
    if absent:
        raise _unreadable(folder, f"the index names {len(absent)} tensors that no shard has: {min(absent)}")
    return Checkpoint(folder, config, shards, tensors)


def weight_shards(folder: Path) -> tuple[Path, ...]:
    """The weight files that transformers would load from `folder`.

    Raises InputError when there are none.
    """
    if (folder / SINGLE_FILE).is_file():
        return (folder / SINGLE_FILE,)
    pickles = pickled_weights(folder)
    if pickles:
        raise InputError([pickled_model("base model", str(folder), pickles)])
    try:
        names = sorted(set(_indexed_names(folder).values()))
    except (OSError, ValueError) as error:
        raise _unreadable(folder, str(error)) from error
    lost = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if lost or not names:
        raise _unreadable(folder, f"{INDEX} names {lost[0] if lost else 'no file'}")
    return tuple(folder / name for name in names)


def _indexed_names(folder: Path) -> dict[str, str]:
    """Tensor name to shard; empty for a model of one file."""
    if (folder / SINGLE_FILE).is_file():
        return {}
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise ValueError(f"{INDEX} has no weight_map")
    return {str(name): str(shard) for name, shard in index["weight_map"].items()}


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Name, type, shape and place of every tensor in a file.

    Raises OSError or ValueError when the file cannot be read, or is not what its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        data = LENGTH_BYTES + length
        if not LENGTH_BYTES < data <= size:
            raise ValueError(f"{path.name} is not a safetensors file, or was cut short")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} has a header that is no JSON object")
    header.pop("__metadata__", None)
    tensors = {name: _stored(name, path, entry, data) for name, entry in header.items()}
    end = max((tensor.start + tensor.length for tensor in tensors.values()), default=data)
    if end != size:
        raise ValueError(f"{path.name} has {size} bytes where its header says {end}")
    return tensors


def _stored(name: str, path: Path, entry: Mapping[str, Any], data: int) -> StoredTensor:
    try:
        (begin, end), shape = entry["data_offsets"], tuple(entry["shape"])
        tensor = StoredTensor(name, path, entry["dtype"], shape, data + begin, end - begin)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} describes {name} in a way that is not the format's") from error
    bytes_each = VALUE_BYTES.get(tensor.dtype)
    if bytes_each and math.prod(shape) * bytes_each != tensor.length:
        raise ValueError(f"{path.name}: {name} has {tensor.length} bytes, not those of its shape {shape}")
    return tensor


def read_bytes(tensor: StoredTensor) -> bytearray:
    """The values of a tensor as they are stored."""
    content = bytearray(tensor.length)
    with tensor.file.open("rb", buffering=0) as file:
        read_into(file.fileno(), memoryview(content), tensor.start)
    return content


def read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill `buffer` from byte `offset` on. Raises ValueError when the file ends before."""
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if not count:
            raise ValueError(f"the file ends at byte {offset}, {len(buffer)} bytes early")
        buffer, offset = buffer[count:], offset + count


def write_from(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Write `buffer` at byte `offset`."""
    while buffer:
        count = os.pwrite(descriptor, buffer, offset)
        buffer, offset = buffer[count:], offset + count


def _unreadable(folder: Path, reason: str) -> InputError:
    return InputError.of(
        where="base model",
        key="SFT_BASE_MODEL",
        value=str(folder),
        expected=f"a model folder with config.json and whole safetensors weights ({reason})",
        remedy="download or save the model again, as safetensors",
    )
