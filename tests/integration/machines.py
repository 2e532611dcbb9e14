"""Two "machines" on this host: namespaces with a network, a name and mounts of their own, joined by a cable.

They last as long as the processes that hold them: nothing is left behind, whatever ends the tests.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from train_command import clean_environment

NAMES = ("node0", "node1")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
# Compiled operators are the same on both; compiling them takes minutes.
EXTENSIONS = Path.home() / ".cache/torch_extensions"
UNSHARE = ["unshare", "--net", "--uts", "--mount", "--propagation", "private"]


def why_not() -> str:
    """Why there can be no machines here; empty where there can."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]:
        return f"no {missing[0]} on this machine"
    tried = subprocess.run(
        [*UNSHARE, "ip", "link", "show", "lo"], capture_output=True, text=True, check=False
    )
    return f"no namespaces allowed: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Machine:
    """One of them. `holder` is the process that keeps its namespaces alive."""

    number: int
    holder: int
    home: Path

    @property
    def name(self) -> str:
        return NAMES[self.number]

    @property
    def address(self) -> str:
        return ADDRESSES[self.number]

    def line(self, command: Sequence[object]) -> list[str]:
        """The command in this machine."""
        inside = ["nsenter", "--target", str(self.holder), "--net", "--uts", "--mount", "--"]
        return [*inside, *map(str, command)]

    def run(self, *command: object) -> None:
        subprocess.run(self.line(command), check=True, capture_output=True, text=True)

    def begun(self, command: Sequence[object], cwd: Path, **environ: str) -> "subprocess.Popen[str]":
        """The command, running there, with both outputs in one pipe."""
        # nsenter keeps the working folder of the outside: what is mounted over it would not be seen.
        there = ["env", "-C", cwd, *command]
        return subprocess.Popen(
            self.line(there),
            env={
                **clean_environment(),
                "HOME": str(self.home),
                "OMP_NUM_THREADS": "1",
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """A pair that reach each other by name, each with a home under `folder`, and all of this host's files."""
    holders = [_holder(name) for name in NAMES]
    try:
        pair = [_machine(number, process.pid, folder) for number, process in enumerate(holders)]
        ends = (f"netns {pair[0].holder}", f"netns {pair[1].holder}")
        cable = f"ip link add eth0 {ends[0]} type veth peer name eth0 {ends[1]}".split()
        subprocess.run(cable, check=True, capture_output=True, text=True)
        hosts = folder / "hosts"
        named = zip(ADDRESSES, NAMES, strict=True)
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {name}\n" for a, name in named))
        for machine in pair:
            machine.run("mount", "--bind", hosts, "/etc/hosts")
            machine.run("ip", "link", "set", "lo", "up")
            machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
            machine.run("ip", "link", "set", "eth0", "up")
        yield pair[0], pair[1]
    finally:
        for process in holders:
            process.kill()
            process.wait()


def _holder(name: str) -> "subprocess.Popen[str]":
    """A process in new namespaces, which ends when its parent does."""
    script = f"hostname {name} && echo ready && exec setpriv --pdeathsig KILL sleep infinity"
    process = subprocess.Popen(
        [*UNSHARE, "sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _machine(number: int, holder: int, folder: Path) -> Machine:
    home = folder / f"home-{NAMES[number]}"
    EXTENSIONS.mkdir(parents=True, exist_ok=True)
    (home / ".cache").mkdir(parents=True, exist_ok=True)
    (home / ".cache/torch_extensions").symlink_to(EXTENSIONS)
    return Machine(number, holder, home)
