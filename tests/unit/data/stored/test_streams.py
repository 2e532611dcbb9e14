"""Hub data sets whose rows are kept as they arrive. The Hub is a folder here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from lib.data.keeping import keeper
from lib.data.reading.sources import NormalizedRows, Source, load_source
from lib.data.reading.usable_rows import read_examples
from lib.data.stored import chunks, streams
from lib.settings import InputError, StageSettings, load_stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageSettings]:
    monkeypatch.setattr(streams, "CHUNK_ROWS", 8)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    hub = tmp_path / "hub"
    hub.mkdir()
    rows = [{"prompt": f"問 {i}", "completion": f"answer {i}"} for i in range(50)]
    (hub / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    opened = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name: opened(str(hub)))

    def make(streaming: int = 1) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": "base", "SFT_OUT_LORA_DIR": "out", "SFT_DATASET_ID": "me/large",
            "SFT_CACHE_DIR": tmp_path / "cache", "SFT_DATASET_NUM_PROC": 1,
            "SFT_DATASET_STREAMING": streaming,
        }  # fmt: skip
        (tmp_path / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
        return load_stage(tmp_path, 1, environ={})

    return make


def answers(settings: StageSettings, split: str) -> list[str]:
    loaded = load_source("me/large", split, keep=keeper(settings.data))
    assert loaded is not None
    assert isinstance(loaded[0], NormalizedRows)
    table, _ = read_examples(Source("me/large", "me/large", split, None, *loaded), strict=True)
    return [example.messages[-1].content for example in table.examples]


def test_the_part_that_is_asked_for_is_kept_and_found_again(
    stage: Callable[..., StageSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = [f"answer {i}" for i in range(5, 30)]
    assert answers(stage(), "train[5:30]") == expected
    assert not [path for path in tmp_path.rglob("*.arrow") if "rows-" not in str(path)]
    monkeypatch.setattr(streams, "_rows", None)  # nothing is streamed again
    assert answers(stage(), "train[5:30]") == expected


def test_a_stream_that_breaks_off_goes_on_where_it_stood(
    stage: Callable[..., StageSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = streams._rows

    def broken(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(whole(*arguments)):
            if number == 20:
                raise InputError.of(where="me/large", value="connection lost")
            yield row

    with monkeypatch.context() as patched:
        patched.setattr(streams, "_rows", broken)
        with pytest.raises(InputError, match="connection lost"):
            answers(stage(), "train")
    kept = sorted(tmp_path.glob("cache/rows-*/*.arrow"))
    assert len(kept) == 2
    before = [path.stat().st_mtime_ns for path in kept]
    assert answers(stage(), "train") == [f"answer {i}" for i in range(50)]
    assert [path.stat().st_mtime_ns for path in kept] == before


@pytest.mark.parametrize("split", ["train[:10%]", "train[-5:]"])
def test_a_part_that_only_the_end_tells_is_refused(stage: Callable[..., StageSettings], split: str) -> None:
    with pytest.raises(InputError, match="from the beginning"):
        answers(stage(), split)


def test_a_split_that_is_not_there_is_named(stage: Callable[..., StageSettings]) -> None:
    with pytest.raises(InputError, match="test"):
        answers(stage(), "test")
