"""Runs of train.py that start at once: forked from a process that has imported everything."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from train_command import clean_environment


@dataclass
class ForkServer:
    """Starts runs of train.py at once."""

    process: "subprocess.Popen[str]"

    def start(self, cwd: Path, *arguments: object, largest_file: int = 0, errors: str = "said.txt") -> int:
        """Process id of a new run, which may write files of at most so many bytes; its output is appended to
        `said.txt` in `cwd`, what goes to stderr to `errors`."""
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "log": str(cwd / "said.txt"),
            "errors": str(cwd / errors),
            "largest_file": largest_file,
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Exit code of the run that was started last."""
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def run(self, cwd: Path, *arguments: object, largest_file: int = 0) -> int:
        self.start(cwd, *arguments, largest_file=largest_file)
        return self.wait()

    def result(self, cwd: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """The finished run with its output, as `TrainCommand` gives it."""
        self.start(cwd, *arguments, errors="errors.txt")
        code = self.wait()
        out, err = ((cwd / name).read_text(encoding="utf-8") for name in ("said.txt", "errors.txt"))
        return subprocess.CompletedProcess(arguments, code, out, err)

    def killed(self, cwd: Path, *arguments: object, after: float) -> int:
        """Exit code of a run that gets SIGKILL after so many seconds, if it lives so long."""
        child = self.start(cwd, *arguments)
        time.sleep(after)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return self.wait()


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        env={**clean_environment(), "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        server = ForkServer(process)
        assert server._line() == "ready\n"
        yield server
        assert process.stdin is not None
        process.stdin.close()
