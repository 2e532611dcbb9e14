"""DeepSpeed's part of a checkpoint, read without running what is pickled in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def loaded_without_pickle() -> Iterator[None]:
    """In the block DeepSpeed's loader, which unpickles anything (`weights_only=False`), takes only tensors,
    plain values and the few classes of its own that it saves. Nothing where DeepSpeed is not in use."""
    if "deepspeed" not in sys.modules:
        yield
        return
    import torch
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    def load(_: Any, path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals(_own_classes()):
            return torch.load(path, map_location=map_location, weights_only=True)

    unpickling = TorchCheckpointEngine.load
    TorchCheckpointEngine.load = load
    try:
        yield
    finally:
        TorchCheckpointEngine.load = unpickling


def _own_classes() -> list[Any]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
