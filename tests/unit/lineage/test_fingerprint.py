from pathlib import Path

import pytest

from lib.lineage import fingerprint
from lib.lineage.fingerprint import base_fingerprint, differences, hub_snapshot, json_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (base / name).write_text(name)
    return base


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_a_base_is_known_by_the_contents_of_its_files(name: str, folder: Path) -> None:
    before = base_fingerprint(str(folder), "")
    assert base_fingerprint(str(folder), "") == before
    (folder / name).write_text("changed")
    changed = base_fingerprint(str(folder), "")
    assert changed != before
    (folder / name).unlink()
    assert base_fingerprint(str(folder), "") not in {before, changed}


def test_what_is_no_part_of_the_model_does_not_count(folder: Path) -> None:
    before = base_fingerprint(str(folder), "")
    (folder / "README.md").write_text("words")
    (folder / "pytorch_model.bin").write_text("never read")
    assert base_fingerprint(str(folder), "") == before


def test_the_place_of_the_folder_does_not_count(folder: Path) -> None:
    before = base_fingerprint(str(folder), "")
    moved = folder.rename(folder.with_name("elsewhere"))
    assert base_fingerprint(str(moved), "") == before


def test_a_large_file_is_known_by_its_size_and_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_FILE_LIMIT", 100)
    monkeypatch.setattr(fingerprint, "END_BYTES", 10)
    weights = folder / "model.safetensors"
    seen = set()
    for content in (b"a" * 101, b"a" * 102, b"b" + b"a" * 100, b"a" * 100 + b"b"):
        weights.write_bytes(content)
        seen.add(base_fingerprint(str(folder), ""))
    assert len(seen) == 4


def test_a_hub_model_is_known_by_its_cached_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uncached = base_fingerprint("owner/model", "main")
    assert uncached != base_fingerprint("owner/model", "v2")
    assert uncached != base_fingerprint("owner/other", "main")
    monkeypatch.setattr(fingerprint, "hub_snapshot", lambda name, revision: tmp_path / "commit1")
    cached = base_fingerprint("owner/model", "main")
    assert cached != uncached
    monkeypatch.setattr(fingerprint, "hub_snapshot", lambda name, revision: tmp_path / "commit2")
    assert base_fingerprint("owner/model", "main") != cached


def test_what_is_no_hub_id_is_not_looked_up(tmp_path: Path) -> None:
    for name in (str(tmp_path), "a/b/c", "owner/model with blanks"):
        assert hub_snapshot(name, "") is None


def test_canonical_json() -> None:
    assert json_sha256({"a": 1, "b": ["名"]}) == json_sha256({"b": ["名"], "a": 1})
    assert json_sha256([1, 2]) != json_sha256([2, 1])


def test_differences_in_both_directions() -> None:
    recorded, current = {"same": 1, "changed": 1, "gone": 1}, {"new": 2, "changed": 2, "same": 1}
    assert differences(recorded, current) == [("new", None, 2), ("changed", 1, 2), ("gone", 1, None)]
