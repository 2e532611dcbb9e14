"""GPUs as their makers' data sheets give them: for plans of hardware that is not here, and for times.

Speeds are those of dense bf16 products that sum in fp32; where a data sheet gives them "with sparsity", half.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches

from lib.settings import InputError

GB, TB, TERA = 10**9, 10**12, 1e12


@dataclass(frozen=True)
class Card:
    name: str
    memory: int
    """Bytes, as sold; the driver often says some per cent more."""
    flops: float = 0.0
    """Per second, bf16; 0 where it is not known."""
    bandwidth: float = 0.0
    """Bytes a second between memory and chip; 0 where it is not known."""


# Data sheets of nvidia.com, by product; of the RTX cards the white papers of Ampere, Ada and Blackwell.
# The particular ones stand above the general ones: a driver's name is taken for the first that it contains.
CARDS = (
    Card("B200", 180 * GB, 2250 * TERA, 8.0 * TB),  # DGX B200: 1,440 GB and 64 TB/s for eight
    Card("H200-NVL", 141 * GB, 835.5 * TERA, 4.8 * TB),
    Card("H200", 141 * GB, 989.5 * TERA, 4.8 * TB),
    Card("H100-NVL", 94 * GB, 835.5 * TERA, 3.9 * TB),
    Card("H100-PCIe", 80 * GB, 756.5 * TERA, 2.0 * TB),
    Card("H100", 80 * GB, 989.5 * TERA, 3.35 * TB),
    Card("A100-40GB", 40 * GB, 312 * TERA, 1.555 * TB),
    Card("A100", 80 * GB, 312 * TERA, 2.039 * TB),
    Card("L40S", 48 * GB, 362 * TERA, 0.864 * TB),
    Card("L4", 24 * GB, 121 * TERA, 0.3 * TB),
    Card("A10", 24 * GB, 125 * TERA, 0.6 * TB),
    Card("RTX-A6000", 48 * GB, 154.8 * TERA, 0.768 * TB),
    Card("RTX-5090", 32 * GB, 209.5 * TERA, 1.792 * TB),
    Card("RTX-4090", 24 * GB, 165.2 * TERA, 1.008 * TB),
    Card("RTX-3090", 24 * GB, 71 * TERA, 0.936 * TB),
)
BY_NAME = {card.name.lower(): card for card in CARDS}
HARDWARE = re.compile(r"(?P<count>[1-9]\d{0,3})x(?P<name>[A-Za-z].*?)??-?(?:(?P<gb>[1-9]\d{0,3})GB)?", re.I)


def parse_hardware(text: str) -> tuple[int, Card]:
    """`4xH100`, `8xA100-40GB`, `2x48GB`: how many GPUs of which kind. A size beside a name overrides the
    data sheet's; a size alone leaves the speed open. Raises InputError for anything else."""
    found = HARDWARE.fullmatch(text.strip())
    name, size = (found["name"] or "", int(found["gb"] or 0) * GB) if found else ("", 0)
    whole = BY_NAME.get(f"{name}-{size // GB}gb".lower()) or BY_NAME.get(name.lower())
    if found and whole:
        return int(found["count"]), replace(whole, memory=size or whole.memory)
    if found and size and not name:
        return int(found["count"]), Card(f"{size // GB} GB GPU", size)
    near = get_close_matches(name.lower(), BY_NAME, n=1)
    raise InputError.of(
        where="command line",
        key="--hardware",
        value=text,
        expected="how many GPUs of which kind, or of which memory: 4xH100, 1xH200, 8xA100-40GB, 2x48GB",
        remedy=(f"did you mean {BY_NAME[near[0]].name}? " if near else "")
        + f"known are {', '.join(card.name for card in CARDS)}",
    )


def card_named(driver_name: str) -> Card | None:
    """The card that a driver calls `NVIDIA A100-SXM4-40GB`; None for one that is not in the table."""
    words = _words(driver_name)
    return next((card for card in CARDS if _words(card.name) <= words), None)


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s-]+", name.lower()))
