"""The stacks of a process that holds Python's own lock inside of C code: no thread of it can run Python.

`faulthandler` writes them from a thread that needs no Python, into a pipe; a shell at its other end counts.
The watchdog, which needs Python, takes them back as long as it runs. A process that was stopped (SIGSTOP, a
frozen container) writes once when it goes on, however long that was; only one that is held writes again and
again. Then the shell prints one line, keeps the stacks, and ends the process where it is to stop.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

DUMPS = 4
"""In a row, until it is said."""
MOVES = b"moves\n"
# $0: what to say, $1: the file, $2: the process to end, or nothing. Ends when that closes the pipe or dies.
RELAY = r"""
dumps=0
while IFS= read -r line; do
    case $line in
    moves) dumps=0 ;;
    Timeout*) dumps=$((dumps + 1)) ;;
    esac
    [ "$dumps" -eq 4 ] || continue
    case $line in
    Timeout*)
        printf '%s\n' "$0" >&2; mkdir -p "${1%/*}"; printf '==== %s\n' "$0" >> "$1"; told=
        [ -z "$2" ] || (sleep 1; kill -HUP "$2"; sleep 1; kill -KILL "$2") > /dev/null 2>&1 < /dev/null & ;;
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
        seconds = limit + max(limit * SLACK, LEAST_SLACK)
        level = "ERROR" if stops else "WARNING"
        said = (
            f"[{level}] nothing has moved in rank {rank} for {seconds:.1f} s, "
            f"not even its watchdog: held inside of C code, or the stage's disk hangs. "
            f"Its stacks: {stacks.absolute()}"
        )
        self._every = seconds / DUMPS
        self._ends = stops and _ended_by_hangup()
        self._relay = subprocess.Popen(
            ["sh", "-c", RELAY, said, str(stacks.absolute()), str(os.getpid()) if stops else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the run
        )
        self.put_off()

    def put_off(self) -> None:
        """Whatever was written until now is taken back."""
        if self._relay.stdin and not self._relay.stdin.closed:
            faulthandler.dump_traceback_later(self._every, repeat=True, file=self._relay.stdin)
            with suppress(BrokenPipeError):
                self._relay.stdin.write(MOVES)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._ends:
            ctypes.CDLL(None).signal(signal.SIGHUP, ctypes.c_void_p())  # the default
        if self._relay.stdin:
            self._relay.stdin.close()
        try:
            self._relay.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._relay.kill()
            self._relay.wait()


def _ended_by_hangup() -> bool:
    """From now on SIGHUP, which ends a process anyway, ends it with code 1, though no Python can run: libc's
    `_exit` is called with the signal's number, which is 1. Not where SIGHUP is ignored (nohup) or handled."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
        return False
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGHUP, ctypes.cast(libc._exit, ctypes.c_void_p))
    return True
