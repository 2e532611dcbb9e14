import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lib.data.reading.local_identity import local_fingerprints
from lib.settings import DataSettings, MixEntry, load_stage

Data = Callable[..., Sequence[MixEntry]]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """data(("id", "split"), …): the mix of a stage."""

    def make(*entries: tuple[str, str]) -> Sequence[MixEntry]:
        folder = tmp_path / "stages"
        folder.mkdir(exist_ok=True)
        mix = json.dumps([{"id": name, "split": split} for name, split in entries])
        lines = f"SFT_BASE_MODEL=b\nSFT_OUT_LORA_DIR=o\nSFT_DATASET_MIX='{mix}'\n"
        (folder / "stage1.env").write_text(lines)
        return load_stage(folder, 1, environ={}).data.mix

    return make


def test_a_file_is_known_by_its_contents(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n')
    settings = data((str(file), "train"))
    first = local_fingerprints(settings)
    assert list(first) == [str(file)]
    assert first == local_fingerprints(settings)
    file.write_text('{"text": "b"}\n')
    assert local_fingerprints(settings) != first
    file.write_text('{"text": "a"}\n')
    assert local_fingerprints(settings) == first


def test_a_folder_by_the_files_of_its_split(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(f'{{"text": "{split}"}}\n')
    settings = data((str(folder), "train"), (str(folder), "test"))
    first = local_fingerprints(settings)
    assert set(first) == {str(folder), f"{folder}[test]"}
    assert len(set(first.values())) == 2
    (folder / "test.jsonl").write_text('{"text": "changed"}\n')
    second = local_fingerprints(settings)
    assert second[str(folder)] == first[str(folder)]
    assert second[f"{folder}[test]"] != first[f"{folder}[test]"]


def test_hub_data_sets_are_left_out_and_broken_ones_equal_nothing(data: Data, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert local_fingerprints(data(("owner/set", "train"), (str(empty), "train"))) == {str(empty): ""}


def test_a_pipe_which_may_never_end_is_not_read(data: Data, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    assert local_fingerprints(data((str(tmp_path / "rows.jsonl"), "train"))) == {
        str(tmp_path / "rows.jsonl"): ""
    }


def test_the_home_folder_expands(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    named = local_fingerprints(data(("~/rows.jsonl", "train")))
    plain = local_fingerprints(data((str(tmp_path / "rows.jsonl"), "train")))
    assert list(named.values()) == list(plain.values())


def test_it_is_the_fingerprint_that_a_run_records(data: Data, tmp_path: Path) -> None:
    from lib.data.reading.sources import load_sources

    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n')
    mix = data((str(file), "train"))
    (source,) = load_sources(DataSettings(mix=mix), strict=True).sources
    assert local_fingerprints(mix) == {str(file): source.fingerprint}
