"""train.py, or the script that ENTRY names, which hangs where STALLS says: a JSON list of {phase, how,
seconds, rank}, each once. With UNTIL, the name of a file, computing ends when that says where it computes.

A script of its own, so that worker processes, which run the same script, hang too.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib import heartbeat  # noqa: E402 (found by the line above)

RANK = int(os.environ.get("RANK", "0"))
LEFT = [stall for stall in json.loads(os.environ["STALLS"]) if stall.get("rank", 0) == RANK]


def computing(seconds: float) -> None:
    until, said = time.monotonic() + seconds, threading.Event()
    if "UNTIL" in os.environ:
        here = f"in: {heartbeat.HEART.where}\n"
        threading.Thread(target=await_word, args=(here, said), daemon=True).start()
    while time.monotonic() < until and not said.is_set():
        sum(range(1000))


def await_word(where: str, said: threading.Event) -> None:
    """On a busy machine it may first look as if nothing were computed."""
    path = Path(os.environ["UNTIL"])
    while not (path.is_file() and f"{where}    still computing" in path.read_text()):
        time.sleep(0.1)
    said.set()


def blocked(seconds: float) -> None:
    time.sleep(seconds)


def disk(seconds: float) -> None:
    """Reads a file that gives nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.safetensors"
        os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR)
        threading.Timer(seconds, os.write, (descriptor, b"x")).start()
        os.read(descriptor, 1)
        os.close(descriptor)


def compiling(seconds: float) -> None:
    """A program called as a compiler is."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink("/bin/sleep", f"{folder}/cc1plus")
        subprocess.run([f"{folder}/cc1plus", str(seconds)], check=True)


def data(seconds: float) -> None:
    from torch.utils.data import DataLoader

    class Slow:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            time.sleep(seconds)
            return index

    list(DataLoader(Slow()))  # type: ignore[arg-type]


def experts(seconds: float) -> None:
    """As an eager loop over the experts."""

    def forward_experts() -> None:
        computing(seconds)

    forward_experts()


def held(seconds: float) -> None:
    """C code that keeps Python's lock."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


HOW: dict[str, Callable[[float], None]] = {
    f.__name__: f for f in (computing, blocked, disk, compiling, data, experts, held)
}


def hang(where: str) -> None:
    for stall in [stall for stall in LEFT if stall["phase"] == where]:
        LEFT.remove(stall)
        HOW[stall["how"]](stall["seconds"])


@contextmanager
def stalled_phase(name: str) -> Iterator[None]:
    with plain_phase(name):
        hang(name)
        yield


def stalled_beat(detail: str = "") -> None:
    plain_beat(detail)
    if detail:
        hang(detail)


def main() -> Any:
    return importlib.import_module(os.environ.get("ENTRY", "train")).main()


if __name__ == "__main__":
    plain_phase, plain_beat = heartbeat.phase, heartbeat.beat
    heartbeat.phase, heartbeat.beat = stalled_phase, stalled_beat
    sys.exit(main())
