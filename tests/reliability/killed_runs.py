"""A curriculum whose runs are killed at random moments, and what came of it in the end."""

import hashlib
import json
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from forked_runs import ForkServer  # noqa: E402

LIMIT_SECONDS = 600
OF_TIME = ("seconds", "reused", "runtime", "per_second", "peak_memory", "finished", "run_id", "checksum")


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
