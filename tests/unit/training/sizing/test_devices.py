import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.training.sizing import devices
from lib.training.sizing.devices import count_gpus, device_memory, gpu_memory, host_memory

Install = Callable[..., None]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """gpus("81559", "143771"): a machine whose driver tool lists GPUs of so many MiB."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def install(*sizes: str) -> None:
        listing = "".join(
            f"GPU {i}: NVIDIA (UUID: GPU-{i})\n  MIG 1g.18gb Device 0\n" for i in range(len(sizes))
        )
        tool = folder / "nvidia-smi"
        tool.write_text(
            f'#!/bin/sh\ncase "$1" in\n-L) cat <<END\n{listing}END\n;;\n'
            "--query-gpu=memory.total) cat <<END\n"
            + "".join(f"{size}\n" for size in sizes)
            + "END\n;;\nesac\n"
        )
        tool.chmod(0o755)

    return install


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """machine(16): one with so many GiB; machine(16, limit="…"): in a container with that limit."""

    def make(gib: int, limit: str = "max") -> None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        monkeypatch.setattr(devices, "_physical_memory", lambda: gib * 2**30)
        monkeypatch.setattr(devices, "CGROUP_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))

    return make


def test_the_smallest_gpu_counts(gpus: Install) -> None:
    gpus("143771", "81559", "143771")
    assert (count_gpus({}), gpu_memory({})) == (3, 81559 * 2**20)
    memory = device_memory(processes=3, gpus=3, environ={})
    assert memory.usable == int(0.9 * 81559 * 2**20)
    assert memory.arithmetic == "90% of a GPU's 85.5 GB"


def test_no_visible_gpu_has_no_memory(gpus: Install) -> None:
    gpus("143771")
    assert gpu_memory({"CUDA_VISIBLE_DEVICES": ""}) == 0


def test_a_gpu_that_shares_the_hosts_memory(gpus: Install, machine: Callable[..., None]) -> None:
    """The driver says [N/A] there."""
    gpus("[N/A]")
    machine(64)
    assert count_gpus({}) == 1
    assert device_memory(processes=1, gpus=1, environ={}).usable == 32 * 2**30


def test_half_of_the_host_shared_by_its_processes(machine: Callable[..., None]) -> None:
    machine(16)
    assert host_memory() == 16 * 2**30
    assert device_memory(processes=1, gpus=0, environ={}).usable == 8 * 2**30
    two = device_memory(processes=2, gpus=0, environ={})
    assert (two.usable, two.arithmetic) == (4 * 2**30, "50% of this machine's 17.2 GB for 2 processes")


def test_of_several_machines_each_counts_its_own_processes(machine: Callable[..., None]) -> None:
    machine(16)
    assert device_memory(processes=8, gpus=0, environ={"LOCAL_WORLD_SIZE": "4"}).usable == 2 * 2**30


@pytest.mark.parametrize(("limit", "expected"), [("max", 16), (str(4 * 2**30), 4), (str(2**62), 16)])
def test_a_containers_limit_counts_where_it_is_lower(
    limit: str, expected: int, machine: Callable[..., None]
) -> None:
    machine(16, limit)
    assert host_memory() == expected * 2**30
