"""Whole files, read once."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.lineage import file_hashes
from lib.lineage.file_hashes import file_sha256, known_sha256

CONTENT = b"x" * 100


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own; ten bytes are large and nothing is too young."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "REMEMBERED_BYTES", 10)
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    file_hashes._remembered.cache_clear()
    yield
    file_hashes._remembered.cache_clear()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read whole."""
    seen: list[str] = []
    real = file_hashes._digest
    monkeypatch.setattr(file_hashes, "_digest", lambda path: (seen.append(path.name), real(path))[1])
    return seen


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENT)
    return path


def in_a_new_process(path: Path) -> str:
    """What the files say, without what this process remembers."""
    file_hashes._remembered.cache_clear()
    return file_sha256(path)


def entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "lora-curriculum" / "hashes").iterdir())


def test_a_large_file_is_read_once(shard: Path, reads: list[str]) -> None:
    assert known_sha256(shard) == ""
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert [in_a_new_process(shard) for _ in range(3)] == [digest] * 3
    assert known_sha256(shard) == digest
    assert reads == [shard.name]


def test_a_small_file_is_read_each_time_and_leaves_nothing(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"small")
    assert known_sha256(path) == file_sha256(path) == hashlib.sha256(b"small").hexdigest()
    assert len(reads) == 2
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_is_read_again_even_with_its_old_times(shard: Path) -> None:
    before = in_a_new_process(shard)
    stat = shard.stat()
    shard.write_bytes(b"y" + CONTENT[1:])
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    while shard.stat().st_ctime_ns == stat.st_ctime_ns:  # in one tick of an older kernel's clock
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert known_sha256(shard) == ""
    assert in_a_new_process(shard) == hashlib.sha256(shard.read_bytes()).hexdigest() != before


def test_a_file_put_in_its_place_is_another_one(shard: Path, tmp_path: Path) -> None:
    in_a_new_process(shard)
    other = tmp_path / "other"
    other.write_bytes(b"y" * len(CONTENT))
    os.replace(other, shard)
    assert known_sha256(shard) == ""


def test_a_young_file_is_not_remembered(
    shard: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", 3600)
    file_sha256(shard)
    file_sha256(shard)
    assert len(reads) == 2


def test_a_link_is_the_file_that_it_leads_to(shard: Path, tmp_path: Path, reads: list[str]) -> None:
    link = tmp_path / "link"
    link.symlink_to(shard)
    assert in_a_new_process(link) == in_a_new_process(shard)
    assert reads == [shard.name]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"sha256": "x"}', "\x00"])
def test_a_damaged_cache_costs_only_time(damage: str, shard: Path, tmp_path: Path, reads: list[str]) -> None:
    digest = in_a_new_process(shard)
    (entry,) = entries(tmp_path)
    entry.write_text(damage)
    assert in_a_new_process(shard) == digest
    assert len(reads) == 2
    assert json.loads(entry.read_text())["sha256"] == digest


def test_a_digest_cut_short_is_not_believed(shard: Path, tmp_path: Path) -> None:
    digest = in_a_new_process(shard)
    (entry,) = entries(tmp_path)
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"sha256": digest[:10]}))
    assert in_a_new_process(shard) == digest


@pytest.mark.parametrize("home", ["file", "relative", "none"])
def test_a_home_that_cannot_be_written_costs_only_time(
    home: str, shard: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if home == "file" else "relative")
    monkeypatch.setattr(Path, "home", homeless if home == "none" else lambda: tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    assert file_sha256(shard) == file_sha256(shard) == hashlib.sha256(CONTENT).hexdigest()
    assert reads == [shard.name], "once a process all the same"
    assert not (tmp_path / "relative").exists()


def hash_all(folder: Path) -> list[str]:
    return [file_sha256(path) for path in sorted(folder.glob("shard*"))]


def test_processes_at_the_same_time_do_not_lose_each_others_work(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"shard{number:02}").write_bytes(CONTENT + bytes([number]))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(hash_all, [tmp_path] * 8)
    assert all(one == found[0] for one in found)
    names = [path.name for path in entries(tmp_path)]
    assert len(names) == 20
    assert not [name for name in names if name.endswith(".part")]
    assert [known_sha256(path) for path in sorted(tmp_path.glob("shard*"))] == found[0]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        file_sha256(tmp_path / "nowhere")
