"""Data files that nobody would write: rows of every shape, and damaged files of every format."""

import csv
import io
import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pyarrow
import pyarrow.parquet

SHELL = "$(touch fired) `touch fired` ${HF_TOKEN}"
LEAVES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e308, float("nan"), 10**400, "", " ", "a", "日本語", "\ud800", "\x00", "\u2028",
    SHELL, "{{ 7 * 7 }}", "<|im_end|>", "</script><img src=x onerror=alert(1)>", "x" * 5000, [], {}, "[",
    '[{"role": "user"}]', [["q", "a"]], [["q"]], {"type": "text", "text": "t"},
    [{"type": "text", "text": "t"}], [{"type": "image"}],
)  # fmt: skip
COLUMNS = (
    "messages", "conversations", "prompt", "completion", "instruction", "input", "output", "history", "text",
    "system", "metadata", "subcategory", "task", "type", "pack", "", "role",
)  # fmt: skip
SOUND: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"prompt": "q", "completion": "a", "metadata": {"format": "json"}},
    {"instruction": "i", "input": "x", "output": {"persons": []}, "history": [["q", "a"]]},
    {"text": "plain"},
)


def some_row(rng: random.Random) -> Any:
    """A sound row with parts of it exchanged; now and then no row at all."""
    if rng.random() < 0.05:
        return deepcopy(rng.choice(LEAVES))
    row = deepcopy(rng.choice(SOUND))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        exchange(rng, row)
    return row


def exchange(rng: random.Random, row: Any) -> None:
    """Walks down to some place and puts something else there."""
    while isinstance(row, list | dict) and row:
        place = rng.choice(range(len(row)) if isinstance(row, list) else list(row))
        if rng.random() < 0.4 or not isinstance(row[place], list | dict):
            row[place] = some_value(rng)
            break
        row = row[place]
    if isinstance(row, dict) and rng.random() < 0.5:
        row[rng.choice(COLUMNS)] = some_value(rng)


def some_value(rng: random.Random) -> Any:
    if rng.random() < 0.1:
        value: Any = "deep"
        for _ in range(rng.choice((3, 50, 900, 1500))):
            value = [value] if rng.random() < 0.5 else {"content": value}
        return value
    return deepcopy(rng.choice(LEAVES))


def jsonl(rng: random.Random) -> bytes:
    lines = [_dumped(some_row(rng)) for _ in range(rng.randrange(1, 8))]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def listed(rng: random.Random) -> bytes:
    rows = ", ".join(_dumped(some_row(rng)) for _ in range(rng.randrange(1, 8)))
    return (
        rng.choice(("[{}]", '{{"data": [{}]}}', "{}", '{{"a": [{}], "b": []}}'))
        .format(rows)
        .encode("utf-8", "surrogatepass")
    )


def _dumped(row: Any) -> str:
    try:
        return json.dumps(row, ensure_ascii=False)
    except RecursionError:
        return "[" * 100_000


def table(rng: random.Random) -> bytes:
    """CSV with the columns of a sound row and texts for values."""
    columns = list(rng.choice(SOUND))
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, quoting=rng.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL)))
    writer.writerow(columns)
    for _ in range(rng.randrange(6)):
        writer.writerow(
            [str(rng.choice(LEAVES))[:5000] for _ in range(len(columns) + rng.choice((0, 0, 0, 1, -1)))]
        )
    return lines.getvalue().encode("utf-8", "surrogatepass")


def parquet(rng: random.Random) -> bytes:
    buffer = pyarrow.BufferOutputStream()
    compression = rng.choice(("snappy", "zstd", "gzip", "none"))
    pyarrow.parquet.write_table(
        _columns(rng), buffer, compression=compression, row_group_size=rng.choice((2, 100))
    )
    return buffer.getvalue().to_pybytes()


def arrow(rng: random.Random) -> bytes:
    buffer = pyarrow.BufferOutputStream()
    content = _columns(rng)
    with pyarrow.ipc.new_stream(buffer, content.schema) as writer:
        writer.write_table(content)
    return buffer.getvalue().to_pybytes()


def _columns(rng: random.Random) -> pyarrow.Table:
    """Sound rows, and columns of types that JSON has not."""
    rows = [rng.choice(SOUND[:1] + SOUND[2:3]) for _ in range(rng.randrange(1, 9))]
    content = pyarrow.Table.from_pylist(rows)
    if rng.random() < 0.3:
        odd = rng.choice([b"\xff", 10**9, 1.5, None])
        content = content.append_column(rng.choice(COLUMNS[:12]) + "_", pyarrow.array([odd] * len(rows)))
    return content


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A few bytes changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        start = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start : start + rng.randrange(20)]
        elif kind == 2:
            changed[start:start] = rng.randbytes(rng.randrange(1, 9))
        else:
            changed[start:start] = changed[start : start + 40]
    return bytes(changed)


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    ".jsonl": jsonl,
    ".json": listed,
    ".csv": table,
    ".parquet": parquet,
    ".arrow": arrow,
}


def data_file(seed: int) -> tuple[str, bytes]:
    """File ending and content; the same for the same seed."""
    rng = random.Random(seed)
    ending = rng.choice(list(MAKERS))
    content = MAKERS[ending](rng)
    text = ending in {".jsonl", ".json", ".csv"}
    return ending, damaged(rng, content) if rng.random() < (0.3 if text else 0.8) else content
