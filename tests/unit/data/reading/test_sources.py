import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from lib.data.reading import data_files, hub, sources
from lib.data.reading.sources import AbsentSource, load_source, load_sources
from lib.settings.errors import InputError


@dataclass
class Entry:
    id: str
    weight: float | None = None
    split: str = "train"


@dataclass
class Data:
    mix: list[Entry] = field(default_factory=list)


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n')
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, split: str) -> None:
        raise AssertionError(f"tried to download {name}")

    monkeypatch.setattr(sources, "load_from_hub", refuse)


def test_a_relative_path_starts_at_the_working_directory(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows_file.parent)
    monkeypatch.setenv("HOME", str(rows_file.parent))
    for name in ("rows.jsonl", "./rows.jsonl", "~/rows.jsonl", str(rows_file)):
        loaded = load_source(name, "any split: the file is named")
        assert loaded is not None
        assert loaded[0] == [{"text": "one"}]


@pytest.mark.parametrize("name", ["gone.jsonl", "./gone", "~/gone", "/gone", "a/b/c", "a name with spaces"])
def test_a_missing_path_is_not_taken_for_a_hub_id(name: str, no_network: None) -> None:
    with pytest.raises(InputError, match="exists"):
        load_source(name, "train")


def test_an_empty_data_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="at least one row"):
        load_source(str(tmp_path / "empty.jsonl"), "train")


def test_a_part_of_a_local_file_is_read_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(10)))
    loaded = load_source(str(path), "train[:4]")
    assert loaded is not None
    assert [row["text"] for row in loaded[0]] == ["0", "1", "2", "3"]
    with pytest.raises(InputError, match="at least one row"):
        load_source(str(path), "train[10:]")


@pytest.mark.parametrize("split", ["train+test", "train[:4]+test", "train[4]", "train[:4", ""])
def test_another_form_of_a_split_is_an_error(split: str, rows_file: Path) -> None:
    with pytest.raises(InputError, match="FROM:TO"):
        load_source(str(rows_file), split)


def test_an_unknown_file_ending_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("x")
    with pytest.raises(InputError, match=r"\.parquet"):
        load_source(str(tmp_path / "rows.xlsx"), "train")


def test_strict_raises_the_problems_of_all_data_sets(rows_file: Path) -> None:
    data: Any = Data([Entry("./gone1"), Entry(str(rows_file)), Entry("./gone2")])
    with pytest.raises(InputError) as caught:
        load_sources(data, strict=True)
    assert [problem.where for problem in caught.value.problems] == ["./gone1", "./gone2"]


def test_lenient_goes_on_with_the_others(rows_file: Path) -> None:
    data: Any = Data([Entry("./gone", 1.0), Entry(str(rows_file), 2.0)])
    loaded = load_sources(data, strict=False)
    assert [source.weight for source in loaded.sources] == [2.0]
    assert loaded.notices[0].startswith("[ERROR] Failed to load ./gone: ")
    assert "\n" not in loaded.notices[0]
    with pytest.raises(InputError):
        load_sources(Data([Entry("./gone")]), strict=False)  # type: ignore[arg-type]


def test_names_are_unique_within_a_mix(rows_file: Path) -> None:
    name = str(rows_file)
    data: Any = Data([Entry(name), Entry(name), Entry(name, split="test"), Entry(name)])
    names = [source.name for source in load_sources(data, strict=True).sources]
    assert names == [name, f"{name} (2)", f"{name}[test]", f"{name} (3)"]


def test_a_plan_reports_what_is_not_on_this_machine(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data: Any = Data([Entry("owner/set", 2.0), Entry(str(rows_file), 1.0)])
    loaded = load_sources(data, strict=True, allow_download=False)
    assert loaded.absent == (AbsentSource("owner/set", "train", 2.0),)
    assert len(loaded.sources) == 1


def test_the_newest_cached_copy_is_read_without_datasets(tmp_path: Path) -> None:
    build = tmp_path / "owner___my_set_v2" / "default" / "0.0.0" / "abc"
    build.mkdir(parents=True)
    for part, text in enumerate(["one", "two"]):
        table = pyarrow.Table.from_pylist([{"text": text}])
        path = build / f"my_set_v2-train-0000{part}-of-00002.arrow"
        with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    environ = {"HF_DATASETS_CACHE": str(tmp_path)}
    cached = hub.cached_files("owner/MySet_v2", "train", environ)
    assert [row for file in cached for row in data_files.read_file(file)] == [
        {"text": "one"},
        {"text": "two"},
    ]
    assert hub.cached_files("owner/MySet_v2", "test", environ) == []
    assert hub.cached_files("owner/other", "train", environ) == []


class DatasetNotFoundError(Exception):
    pass


class GatedRepoError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "environ", "expected"),
    [
        (DatasetNotFoundError("'x/y' doesn't exist"), {}, "or a Hub id, but there is no such repository"),
        (DatasetNotFoundError("'x/y' is a gated dataset on the Hub."), {}, "accept the terms"),
        (GatedRepoError("403"), {}, "`hf auth login`"),
        (ConnectionError("offline"), {"HF_HUB_OFFLINE": "1"}, "but there is none at "),
        (ConnectionError("Couldn't reach 'x/y' on the Hub"), {}, "check the network"),
        (ConnectionError("offline"), {"HF_HUB_OFFLINE": "1"}, "forbids the network"),
        (ValueError("Unknown split \"test\". Should be one of ['train']."), {}, "Should be one of"),
        (RuntimeError("odd"), {}, "RuntimeError"),
    ],
)
def test_a_hub_error_says_what_failed_and_what_to_do(
    error: Exception, environ: Mapping[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    assert expected in str(hub.load_error("x/y", "test", error))


def test_a_json_round_trip_of_unicode_keeps_the_text(tmp_path: Path) -> None:
    path = tmp_path / "ja.json"
    path.write_text(json.dumps([{"text": "レッドフォックス株式会社"}], ensure_ascii=False), encoding="utf-8")
    loaded = load_source(str(path), "train")
    assert loaded is not None
    assert loaded[0][0]["text"] == "レッドフォックス株式会社"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="a regular file"):
        load_source(str(tmp_path / "rows.jsonl"), "train")
