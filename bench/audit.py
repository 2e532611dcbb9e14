"""What the audit of a stage's rows costs, from 1,000 rows to the real size of the news extraction.

    python -m bench.audit                       1,000, 10,000 and 174,663 rows of the generated news
    python -m bench.audit --rows 1000 10000     other sizes

Each size runs in a process of its own: reading the rows, then all checks with SFT_AUDIT=remove. `ratio` is
the cost of a row at the smallest size of 10,000 rows or more, over that at the largest: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.timing import load, median_and_spread
from data.news.make_news import FULL, NewsSet, write_set
from lib.training.sizing.peak_memory import peak_resident_bytes

ROOT = Path(__file__).parents[1]
ROWS = (1_000, 10_000, 174_663)
ENOUGH = 10_000
"""Rows from which the start of a process no longer counts."""


def write_rows(folder: Path, rows: int) -> None:
    """A stage on `rows` articles, a sixth of them with offenders, as the full set has them."""
    positives = rows // 6
    news = NewsSet("", positives, rows - positives, 1, FULL.instruction, FULL.offender, FULL.other)
    write_set(news, folder, seed=1)
    names = ",".join(str(folder / f"{name}.jsonl") for name in ("positives", "negatives"))
    (folder / "stages").mkdir()
    lines = (
        "SFT_BASE_MODEL=none",
        f"SFT_OUT_LORA_DIR={folder}/out",
        f"SFT_DATASET_IDS={names}",
        "SFT_AUDIT=remove",
    )
    (folder / "stages" / "stage1.env").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(stages: Path) -> dict[str, float]:
    """Seconds and highest resident memory of one audit, in this process."""
    from lib.audit.audit import audit_rows
    from lib.data.reading.sources import load_sources
    from lib.data.reading.usable_rows import read_examples
    from lib.settings import load_stage

    settings = load_stage(stages, 1, environ={})
    sources = load_sources(settings.data, strict=True).sources
    tables = [read_examples(source, strict=True)[0] for source in sources]
    before = peak_resident_bytes()
    started, computed = time.perf_counter(), time.process_time()
    cleaned = audit_rows(settings, None, tables, False)
    return {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - computed,
        "found": len(cleaned.findings),
        "memory_of_rows": before,
        "memory": peak_resident_bytes(),
    }


def measured(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), rows)
        command = [sys.executable, "-m", "bench.audit", "--measure", str(Path(folder) / "stages")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    print(
        f"{rows:>9,} rows: {found['seconds']:.1f} s, {found['core_seconds']:.1f} s of a core, "
        f"{1e3 * found['core_seconds'] / rows:.2f} ms a row; {found['memory'] / 1e9:.2f} GB, of which "
        f"{found['memory_of_rows'] / 1e9:.2f} GB are the rows; {found['found']:,} found",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    results = {rows: measured(rows) for rows in options.rows}
    per_row = {rows: found["core_seconds"] / rows for rows, found in results.items()}
    smallest = min([rows for rows in results if rows >= ENOUGH] or [min(results)])
    summary = {
        "ratio": round(per_row[smallest] / per_row[max(results)], 3),
        "bound": 1.0,
        "spread": median_and_spread([1e3 * value for value in per_row.values()])["spread"],
        "milliseconds_a_row": {rows: round(1e3 * value, 3) for rows, value in per_row.items()},
        "memory_beside_the_rows": max(
            found["memory"] - found["memory_of_rows"] for found in results.values()
        ),
        "load": load(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
