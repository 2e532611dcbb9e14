"""The stacks of a process that holds Python's own lock inside of C code: no thread of it can run Python.

`faulthandler` writes them from a thread that needs no Python, into a pipe; a shell at the other end prints
one line and keeps the rest. The watchdog puts it off as long as it runs.
"""

from __future__ import annotations

import faulthandler
import subprocess
from pathlib import Path

# $0: what to say, $1: the file. Ends when this process closes the pipe or dies.
RELAY = r"""
while IFS= read -r line; do
    case $line in
    Timeout*) printf '%s\n' "$0" >&2; mkdir -p "${1%/*}"; printf '==== %s\n' "$0" >> "$1"; told= ;;
    */torch/distributed/*|*/deepspeed/comm/*)
        [ -n "$told" ] || printf '    it waits in a collective:%s\n' "${line#*File}" >&2
        told=1 ;;
    esac
    printf '%s\n' "$line" >> "$1"
done
"""
SLACK, LEAST_SLACK = 0.25, 1.5
"""Of the limit, and in seconds: a watchdog that runs speaks first."""
END_SECONDS = 2.0


class LastResort:
    def __init__(self, limit: float, rank: int, stacks: Path, *, stops: bool) -> None:
        self._seconds, self._stops = limit + max(limit * SLACK, LEAST_SLACK), stops
        level = "ERROR" if stops else "WARNING"
        said = (
            f"[{level}] nothing has moved in rank {rank} for {self._seconds:.1f} s, "
            f"not even its watchdog: held inside of C code, or the stage's disk hangs. "
            f"Its stacks: {stacks.absolute()}"
        )
        self._relay = subprocess.Popen(
            ["sh", "-c", RELAY, said, str(stacks.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run
        )
        self.put_off()

    def put_off(self) -> None:
        if self._relay.stdin and not self._relay.stdin.closed:
            faulthandler.dump_traceback_later(self._seconds, file=self._relay.stdin, exit=self._stops)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._relay.stdin:
            self._relay.stdin.close()
        try:
            self._relay.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._relay.kill()
            self._relay.wait()
