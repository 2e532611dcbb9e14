"""Starting the processes that train. Free of torch until workers are started."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence

from lib.settings import InputError
from lib.training.processes.extension_lock import release_orphaned_locks
from lib.training.processes.worker_words import OURS, last_words
from lib.training.sizing.world import World

# Numbers of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX.
MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 64 * 2**20, -4: 0}
STOP_SECONDS = 600
"""How long workers may take to end their step and save; then they are killed."""


def is_worker(environ: Mapping[str, str] = os.environ) -> bool:
    """True in a process that a launcher (ours, torchrun, DeepSpeed's) has started."""
    return "LOCAL_RANK" in environ


def prepare_environment(world: World) -> None:
    """Environment that DeepSpeed and torch read at import; what the user has set is kept."""
    # Its import, by way of PEFT, recommends a package that fetches kernels from the Hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not world.gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # OpenMP threads that spin at barriers collapse as soon as anything else uses a core.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        keep_freed_memory()
    # DeepSpeed compiles its shared-memory operator with ninja, which lies beside the interpreter.
    path, beside = os.environ.get("PATH", ""), os.path.dirname(sys.executable)
    if path.partition(os.pathsep)[0] != beside:
        os.environ["PATH"] = beside + os.pathsep + path
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of handing it back to the system.

    Every step allocates the same large buffers; fresh pages each time were a third of a run's CPU time
    (docs/log.md). Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in MALLOC_OPTIONS.items():
        mallopt(parameter, value)


def run_workers(world: World, command: Sequence[str], *, sharded: bool = True) -> int:
    """Run `command` (a script and its arguments) once per process under torch's elastic launcher.

    Returns the exit code of the first rank that failed, after saying what that one said, and 0 when all
    succeeded. No restarts: a failed stage is to be looked at, not repeated.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if sharded:
        _require_compiler(world)
        for notice in release_orphaned_locks():
            print(notice, file=sys.stderr, flush=True)
    # More threads than cores make every small product wait for a barrier.
    threads = max(1, (os.cpu_count() or 1) // world.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ[OURS] = "1"
    # It logs in its own words how a worker ended, which is said in ours.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world.processes,
        run_id="curriculum",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
        shutdown_timeout=STOP_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-u", *command)
    except ChildFailedError as error:
        words, code = last_words(error.failures)
        if words:
            print(words, file=sys.stderr, flush=True)
        return code
    except SignalException as signal:
        return 128 + int(signal.sigval)
    return 0


def _require_compiler(world: World) -> None:
    if not world.gpus and shutil.which("c++") is None and shutil.which("g++") is None:
        raise InputError.of(
            where="this machine",
            key="--nproc",
            value=str(world.processes),
            expected="a C++ compiler: DeepSpeed builds its CPU communication operator at first use",
            remedy="install g++ (Debian: apt-get install g++), set SFT_ZERO_STAGE=0, or run with --nproc 1",
        )
