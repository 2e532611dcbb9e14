"""Bytes as a person reads them. Free of torch."""

from __future__ import annotations


def readable_bytes(count: float) -> str:
    """`1536` -> `1.5 kB`, decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def counted(number: int, what: str) -> str:
    """`1 row`, `2 passes`."""
    plural = what if number == 1 else what + ("es" if what.endswith("s") else "s")
    return f"{number} {plural}"
