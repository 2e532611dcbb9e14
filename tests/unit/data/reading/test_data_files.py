import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lib.data.reading import data_files
from lib.data.reading.broken_rows import BrokenRow
from lib.data.reading.data_files import files_of_split, fingerprint, read_file
from lib.settings.errors import InputError

ROWS = [{"text": "one"}, {"text": "日本語\u2028line"}]


def write_jsonl(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reads_every_format(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl")
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps(ROWS))
    wrapped = tmp_path / "c.json"
    wrapped.write_text(json.dumps({"version": "1", "data": ROWS}))
    lines = write_jsonl(tmp_path / "d.json")
    parquet = tmp_path / "e.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet)
    arrow = tmp_path / "f.arrow"
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(str(arrow), table.schema) as writer:
        writer.write_table(table)
    for path in (jsonl, listed, wrapped, lines, parquet, arrow):
        assert list(read_file(path)) == ROWS, path.name


def test_csv_keeps_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,completion\r\n"two\nlines",007\r\nyes,"a ""quoted"" one"\r\n')
    assert read_file(path) == [
        {"prompt": "two\nlines", "completion": "007"},
        {"prompt": "yes", "completion": 'a "quoted" one'},
    ]


def test_a_broken_line_stands_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n{"text": \n[1]\n{"text": "\xff"}\n' + b"[" * 100_000 + b"\n{}\n")
    fine, *broken, empty = read_file(path)
    assert (fine, empty) == ({"text": "fine"}, {})
    assert all(isinstance(row, BrokenRow) for row in broken)
    assert [row.problem.where for row in broken] == [f"{path}:{line}" for line in (3, 4, 5, 6)]
    said = " ".join(row.problem.expected for row in broken)
    assert all(part in said for part in ("Expecting value", "JSON list", "not UTF-8", "nested too deeply"))
    assert "SFT_STRICT=0 skips" in broken[0].problem.remedy


def test_of_a_file_without_a_sound_line_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": \n' * 7 + "[1]\n")
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert [problem.where for problem in caught.value.problems[:5]] == [f"{path}:{n}" for n in range(1, 6)]
    assert "8 broken lines in all" in str(caught.value)


def test_csv_goes_on_after_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nonly one\n\n"x"y,z\nc,d\n"open')
    first, short, quoted, second, unclosed = read_file(path)
    assert (first, second) == ({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"})
    assert [row.problem.where for row in (short, quoted, unclosed)] == [f"{path}:{n}" for n in (3, 5, 7)]


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("a.json", b'[{"a": 1},\n {"b" 2}]', ":2", "not valid JSON"),
        ("a.json", b'{"a": 1}', "", "list of objects"),
        ("a.jsonl", b"\xff\xfe\n", ":1", "not UTF-8"),
        ("a.json", b"[" * 100_000, "", "nested too deeply"),
        ("a.json", b"[" + b"1" * 5000 + b"]", "", "4300 digits"),
        ("a.csv", b"a,b\n1\n", ":2", "number of fields"),
        ("a.parquet", b"PAR1 garbage", "", "not a readable parquet"),
        ("a.parquet", b"", "", "not a readable parquet"),
    ],
)
def test_a_corrupt_file_is_named(tmp_path: Path, name: str, content: bytes, where: str, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_file(path)
    assert caught.value.problems[0].where == f"{path}{where}"


def test_split_is_found_in_file_and_folder_names(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train-00000-of-00001.jsonl")
    deep = write_jsonl(tmp_path / "validation" / "part.jsonl")
    test = write_jsonl(tmp_path / "my_test.jsonl")
    own = write_jsonl(tmp_path / "hard.jsonl")
    write_jsonl(tmp_path / ".cache" / "train.jsonl")
    (tmp_path / "README.md").write_text("train")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert files_of_split(tmp_path, "train") == [train]
    assert files_of_split(tmp_path, "validation") == [deep]
    assert files_of_split(tmp_path, "test") == [test]
    assert files_of_split(tmp_path, "hard") == [own]


def test_unmarked_files_are_train(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / "a.jsonl"), write_jsonl(tmp_path / "b.jsonl")]
    write_jsonl(tmp_path / "test.jsonl")
    assert files_of_split(tmp_path, "train") == files
    with pytest.raises(InputError, match="test, train"):
        files_of_split(tmp_path, "validation")


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl")
    (tmp_path / "train.csv").write_text("text\nx\n")
    with pytest.raises(InputError, match="several formats"):
        files_of_split(tmp_path, "train")


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.jsonl"):
        files_of_split(tmp_path, "train")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one, two = write_jsonl(tmp_path / "1.jsonl"), write_jsonl(tmp_path / "2.jsonl")
    assert fingerprint([one]) == fingerprint([two])
    assert fingerprint([one]) != fingerprint([one, two])
    write_jsonl(two, ROWS[:1])
    assert fingerprint([one]) != fingerprint([two])


def test_a_folder_of_everything_is_not_searched_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "MOST_FILES", 20)
    for number in range(21):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(InputError, match="more than 20 files"):
        files_of_split(tmp_path, "train")


def test_a_file_that_cannot_be_opened_is_named_by_its_hash_too(tmp_path: Path) -> None:
    """A stage hashes its data before it reads a row; root may read everything, but not a folder."""
    with pytest.raises(InputError, match="check the path and its permissions") as refused:
        fingerprint([tmp_path])
    assert str(tmp_path) in str(refused.value)
