"""Whether all processes are about to do the same. Free of torch."""

from __future__ import annotations

import hashlib
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lib.settings.errors import InputError, Problem
from lib.training.machines.place import Place

ROOT = Path(__file__).parents[3]
OF_A_MACHINE = frozenset(
    ["SFT_CACHE_DIR", "SFT_CACHE_GB", "SFT_DATASET_NUM_PROC", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"]
)
"""Settings that may differ: where and how rows are prepared, and the tracking, which is rank 0's."""
COMPUTE = (
    "torch", "transformers", "peft", "trl", "accelerate", "deepspeed", "datasets", "tokenizers", "jinja2",
    "numpy", "pyarrow", "safetensors", "bitsandbytes", "flash-attn",
)  # fmt: skip
"""Packages that decide what comes out, and what the processes send to each other."""
NOTHING = "not there"


def require_same(facts: Sequence[Mapping[str, str]], places: Sequence[Place]) -> None:
    """`facts` of every process, in the order of ranks. Raises InputError with everything in which a machine
    differs from rank 0's."""
    problems = []
    ours = facts[0]
    for host, ranks in _by_host(places).items():
        seen: set[tuple[str, str]] = set()
        for rank in ranks:
            theirs = facts[rank]
            for key in sorted(ours.keys() | theirs.keys()):
                expected, found = ours.get(key, NOTHING), theirs.get(key, NOTHING)
                if expected != found and (key, found) not in seen:
                    seen.add((key, found))
                    problems.append(_difference(host, rank, key, found, expected, places[0].host))
    if problems:
        raise InputError(problems)


def software() -> dict[str, str]:
    """What computes: this project's code, Python and the packages."""
    return {
        "this project's code": _code_hash(),
        "Python": platform.python_version(),
        **{f"{name} version": _version(name) for name in COMPUTE},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "lib").rglob("*.py"), ROOT / "train.py"]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _by_host(places: Sequence[Place]) -> dict[str, list[int]]:
    ranks: defaultdict[str, list[int]] = defaultdict(list)
    for place in places:
        ranks[place.host].append(place.rank)
    return ranks


def _difference(host: str, rank: int, key: str, found: str, expected: str, first: str) -> Problem:
    return Problem(
        where=f"{host} (rank {rank})",
        key=key,
        value=found,
        expected=f"{expected}, as on {first} (rank 0)",
        remedy="give every machine the same stage files, data, code and versions",
    )
