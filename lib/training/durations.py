"""Times as a person reads them. Free of torch."""

from __future__ import annotations


def readable_duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`; to the minute from ten minutes on."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours = minutes // 60
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    if minutes >= 10:
        return f"{round(seconds / 60)} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
