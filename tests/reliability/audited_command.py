"""The real commands under an audit hook, in a home of their own, and what they did."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile_curriculum import CANARY_TOKEN
from train_command import ROOT

HOOK = Path(__file__).parent / "audited"
LIMIT_SECONDS = 300
# Programs that a run may start, and why.
ALLOWED_PROGRAMS = {
    "git": "the commit of this project for the record; MLflow looks for one too",
    "uname": "platform.processor, asked by torch",
    "sh": "passes on what is to be said of a process that hangs (lib/training/watchdog/last_resort.py)",
    "ldconfig": "ctypes.util.find_library, asked by libraries that look for CUDA",
}
# Devices and the kernel's own files: nothing is kept there.
ALLOWED_PLACES = (Path("/dev"), Path("/proc"))


@dataclass(frozen=True)
class Audited:
    """Everything happens in `around`: the working folder, a home and a folder for temporary files. What is
    outside of the working folder's own outputs is compared before and after."""

    around: Path
    work: Path
    outputs: tuple[Path, ...]

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """The command without any of the settings by which tests usually keep libraries off the network."""
        for name in ("home", "tmp"):
            (self.around / name).mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.around / "home"),
                "TMPDIR": str(self.around / "tmp"),
                "PYTHONPATH": str(HOOK),
                "PYTHONDONTWRITEBYTECODE": "1",
                "AUDIT_LOG": str(self.log),
                "HF_TOKEN": CANARY_TOKEN,
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    @property
    def log(self) -> Path:
        return self.around / "tmp" / "audit.log"

    def events(self, kind: str) -> Iterator[list[Any]]:
        """The details of each event of a kind: write, change, start, talk, name, pickle, import."""
        for line in self.log.read_text().splitlines():
            found, *details = json.loads(line)
            if found == kind:
                yield details

    def written_elsewhere(self) -> list[str]:
        """Files that were opened for writing, made or removed outside of the outputs, home and temporary
        folder."""
        allowed = (*self.outputs, self.around / "home", self.around / "tmp", *ALLOWED_PLACES)
        touched = {path for kind in ("write", "change") for paths in self.events(kind) for path in paths}
        return sorted(
            path for path in touched if not any(Path(path).is_relative_to(place) for place in allowed)
        )

    def programs(self) -> set[str]:
        return {Path(str(program)).name for program, _ in self.events("start")}

    def connections(self) -> list[Any]:
        """Addresses beyond this machine, and names that were looked up."""
        addresses = [address for (address,) in self.events("talk") if not _is_local(address)]
        return [*addresses, *self.events("name")]

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the surroundings but outputs, home and temporary folder, with its content."""
        left_out = (*self.outputs, self.around / "home", self.around / "tmp")
        files = (path for path in self.around.rglob("*") if path.is_file())
        return {
            str(path): path.read_bytes()
            for path in files
            if not any(path.is_relative_to(place) for place in left_out)
        }

    def fired(self) -> list[str]:
        return [str(path) for path in self.around.rglob("fired*")]

    def with_the_token(self, said: str) -> list[str]:
        """Where the canary of the environment turned up; the stage files hold it themselves."""
        made = [path for place in (*self.outputs, self.around / "home") for path in place.rglob("*")]
        found = [str(path) for path in made if path.is_file() and CANARY_TOKEN.encode() in path.read_bytes()]
        return [*found, *(["what it printed"] if CANARY_TOKEN in said else [])]


def _is_local(address: Any) -> bool:
    host = address[0] if isinstance(address, list) and address else ""
    return not host or str(host).startswith(("127.", "::1", "localhost"))
