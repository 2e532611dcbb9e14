"""Parquet and arrow files that are damaged, or that unfold to more than they may."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lib.data.reading import columnar_files
from lib.data.reading.broken_rows import BrokenRow
from lib.data.reading.data_files import read_file
from lib.data.reading.sources import Source
from lib.data.reading.usable_rows import read_examples
from lib.settings.errors import InputError

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(40)]


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=10, **options)
    return path


def damaged_group(path: Path) -> Path:
    """A file whose second row group cannot be unpacked."""
    write_parquet(path, compression="snappy")
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    first = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[first : first + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    return path


def test_a_damaged_row_group_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    rows = read_file(damaged_group(tmp_path / "rows.parquet"))
    assert [*rows[:10], *rows[20:]] == [*ROWS[:10], *ROWS[20:]]
    assert all(isinstance(row, BrokenRow) for row in rows[10:20])
    assert rows[10].problem.where.endswith("rows.parquet: row group 1 (rows 10 to 19)")


def test_a_strict_stage_refuses_it_and_a_lenient_one_counts_it(tmp_path: Path) -> None:
    source = Source("d", "d", "train", None, read_file(damaged_group(tmp_path / "rows.parquet")), "")
    with pytest.raises(InputError, match="row group 1"):
        read_examples(source, strict=True)
    table, notices = read_examples(source, strict=False)
    assert (len(table.examples), table.skipped) == (30, 10)
    assert notices[0].startswith("[ERROR] 10 of 40 rows of d are unusable and skipped")
    assert table.examples[10].row_id == "d#20"


def test_a_file_that_unfolds_beyond_bounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar_files, "SMALLEST_LIMIT_BYTES", 10_000)
    bomb = write_parquet(tmp_path / "bomb.parquet", [{"text": "x" * 100_000}] * 10, compression="zstd")
    with pytest.raises(InputError, match="unfold to more than"):
        read_file(bomb)


def test_a_file_of_more_rows_than_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar_files, "SMALLEST_LIMIT_ROWS", 1000)
    table = pyarrow.table({"text": pyarrow.nulls(1_000_000, pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "many.parquet")
    with pytest.raises(InputError, match=r"more than .* rows for its size"):
        read_file(tmp_path / "many.parquet")


def test_an_arrow_file_with_offsets_outside_of_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    content = path.read_bytes()
    offsets = b"".join((n).to_bytes(4, "little") for n in (0, 10, 20))
    assert offsets in content
    path.write_bytes(content.replace(offsets, offsets[:8] + b"\xff\xff\xff\x7f", 1))
    with pytest.raises(InputError, match="not a readable arrow file"):
        read_file(path)
