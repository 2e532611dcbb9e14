"""A curriculum whose runs are killed at random moments, and what came of it in the end."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from train_command import clean_environment  # noqa: E402

LIMIT_SECONDS = 600
OF_TIME = ("seconds", "reused", "runtime", "per_second", "peak_memory", "finished", "run_id", "checksum")


@dataclass
class ForkServer:
    """Starts runs of train.py at once."""

    process: "subprocess.Popen[str]"

    def start(self, cwd: Path, *arguments: object, largest_file: int = 0) -> int:
        """Process id of a new run, which may write files of at most so many bytes; its output is appended to
        `said.txt` in `cwd`."""
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "log": str(cwd / "said.txt"),
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
        [sys.executable, str(HERE / "fork_server.py")],
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


@dataclass
class Kills:
    """What became of a curriculum under kills."""

    count: int = 0
    whole_runs: int = 0
    moments: list[float] = field(default_factory=list)


def kill_until(server: ForkServer, cwd: Path, kills: int, *, seed: int, longest: float) -> Kills:
    """Start `--stage all` again and again, and kill it after up to `longest` seconds, `kills` times; then let
    it end. A run that ends before it is killed begins the last stage again."""
    moments, done = random.Random(seed), Kills()
    while done.count < kills:
        after = moments.uniform(0.05, longest)
        code = server.killed(cwd, "--stage", "all", after=after)
        if code == -signal.SIGKILL:
            done.count += 1
            done.moments.append(round(after, 2))
        else:
            assert code == 0, (cwd / "said.txt").read_text()[-3000:]
            done.whole_runs += 1
            assert server.killed(cwd, "--stage", "all", "--force", after=after) in {-signal.SIGKILL, 0}
            done.count += 1
    assert server.run(cwd, "--stage", "all") == 0, (cwd / "said.txt").read_text()[-3000:]
    return done


def adapters(outputs: list[Path]) -> dict[str, str]:
    """sha256 of the adapter of every stage."""
    return {
        folder.name: hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        for folder in outputs
    }


def without_times(value: Any) -> Any:
    """A stage record without what a clock, the memory or the tracker says."""
    if isinstance(value, dict):
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if not any(part in key for part in OF_TIME)
        }
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def record(folder: Path) -> Any:
    """Of a stage; the commit of the trainer may be another after a long run."""
    content = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    del content["versions"]["code"]
    return without_times(content)
