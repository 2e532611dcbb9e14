"""The highest resident memory is this program's own."""

import subprocess
import sys
from pathlib import Path

from lib.training.sizing.peak_memory import peak_resident_bytes

ROOT = Path(__file__).parents[4]
TELL = "from lib.training.sizing.peak_memory import peak_resident_bytes; print(peak_resident_bytes())"


def test_memory_that_was_given_back_counts() -> None:
    before = peak_resident_bytes()
    block = bytearray(64 << 20)
    block[:: 1 << 12] = b"1" * len(block[:: 1 << 12])
    del block
    assert peak_resident_bytes() >= before
    assert peak_resident_bytes() > 64 << 20


def test_what_the_parent_took_does_not_count() -> None:
    """A parent of 600 MB starts a program of some ten."""
    parent = (
        "import subprocess, sys; block = bytearray(600 << 20); block[::4096] = b'1' * len(block[::4096]);"
        f"subprocess.run([sys.executable, '-c', {TELL!r}], check=True)"
    )
    told = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(told.stdout) < 200 << 20
