"""The real commands, as a user runs them: `python train.py …` in another process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAIN, EXPORT, INFER = (ROOT / f"{name}.py" for name in ("train", "export", "infer"))
LIMIT_SECONDS = 420
SECRET = "hf_ThisMustNeverBeWrittenDown"
# What would reach the settings, the processes or the network.
NOT_PASSED_ON = (
    "SFT_",
    "MLFLOW_",
    "HF_",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
    "MASTER_",
    "PYTEST_",
    "LORA_CURRICULUM_",
)


@dataclass(frozen=True)
class TrainCommand:
    """The command in a working folder of its own."""

    cwd: Path
    script: Path = TRAIN

    def __call__(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """The finished command with its output; `environ` on top of a clean environment."""
        return subprocess.run(
            self._line(arguments),
            cwd=self.cwd,
            env={**clean_environment(), **environ},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    def done(self, *arguments: object, **environ: str) -> str:
        """Standard output of a command that must succeed."""
        result = self(*arguments, **environ)
        assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def interrupted(
        self, *arguments: object, at: str, ready: Callable[[], object] = lambda: True
    ) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command that gets SIGINT when it prints a line, once one had `at`
        and it is `ready`."""
        with subprocess.Popen(
            self._line(arguments),
            cwd=self.cwd,
            env={**clean_environment(), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with SIGINT ignored, and this is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stdout is not None
            seen = ""
            for line in process.stdout:
                seen += line
                if at in seen and ready():
                    process.send_signal(signal.SIGINT)
                    break
            try:
                out, err = process.communicate(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, seen + out, err

    def begun(self, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
        """The command, running; `options` are those of Popen."""
        return subprocess.Popen(self._line(arguments), cwd=self.cwd, env=clean_environment(), **options)

    def _line(self, arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, str(self.script), *map(str, arguments)]


def clean_environment() -> dict[str, str]:
    """The present environment without settings, network and GPU; one thread, and a secret to be kept."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_PASSED_ON)}
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_TOKEN": SECRET,
        "CUDA_VISIBLE_DEVICES": "",
    }
