"""How much memory this process took."""

from __future__ import annotations

import resource


def peak_memory_bytes() -> int:
    """Highest memory of this process so far: the GPU's when there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
