"""Operators that DeepSpeed compiles at first use, compiled in a phase of their own: up to a minute."""

from __future__ import annotations

from collections.abc import Callable

from lib.heartbeat import phase
from lib.training.processes.extension_lock import await_other_machines


def compile_operators(say: Callable[[str], None], *, on_gpu: bool) -> None:
    """On the CPU its communication needs one; DeepSpeed would build it while the processes join. All ranks
    call it: one builds, the others wait for the file. On GPUs nothing that is used here is compiled so."""
    if on_gpu:
        return
    import deepspeed
    import deepspeed.comm.torch
    from deepspeed.accelerator import get_accelerator

    # Every process announces the operator with a print of its own.
    vars(deepspeed.comm.torch)["print"] = lambda *_: None
    with phase("compile"):
        builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
        if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
            await_other_machines(builder.name, say)
            builder.load(verbose=False)
