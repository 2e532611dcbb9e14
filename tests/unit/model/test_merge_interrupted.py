"""Whenever a merge is stopped, what lies there is either whole or not taken for a base."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expert_checkpoints import in_shards

from lib.files import built_aside
from lib.model import shard_writer
from lib.model.merge import MERGE_RECORD, find_merged, obtain_base
from lib.settings import InputError

KILLED = 9
# Everything by which a merge changes what is on disk.
CHANGES = (
    "pwrite", "copy_file_range", "ftruncate", "fsync", "replace", "link", "unlink", "rmdir", "mkdir",
)  # fmt: skip


class Merging:
    """One merge of a tiny model in two shards, of which one has nothing to change."""

    def __init__(self, base: Path, adapter: Path, place: Path, settings: Any) -> None:
        self.base, self.adapter, self.place, self.settings = base, adapter, place, settings

    def run(self, key: str) -> None:
        obtain_base(self.settings, [self.adapter], self.place, key=key)

    def content(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.place.rglob("*")):
            if path.is_file() and path.name != MERGE_RECORD:  # which names times
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    @property
    def key(self) -> str:
        """Of the finished merge that is there; empty when there is none or a file of it changed."""
        found = find_merged(self.place)
        return "" if found.changed else found.key

    def beside(self) -> list[str]:
        return [
            path.name for path in self.place.parent.iterdir() if path.name.startswith(self.place.name + ".")
        ]

    def in_child(self, key: str, *, stop_at: int | None) -> tuple[int, int]:
        """Exit code and number of changes of a merge in a child process that dies at change `stop_at`."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            counter = Deadly(stop_at)
            code = 1
            try:
                counter.watch()
                self.run(key)
                code = 0
            finally:
                os.write(writer, str(counter.count).encode())
                os._exit(code)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            return os.waitstatus_to_exitcode(status), int(pipe.read() or 0)


class Deadly:
    """Counts changes to the disk, and ends the process in the middle of the one numbered `stop_at`."""

    def __init__(self, stop_at: int | None) -> None:
        self.count, self.stop_at = 0, stop_at

    def watch(self) -> None:
        for name in CHANGES:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.count == self.stop_at:
                if name == "pwrite":  # torn: only half of it reaches the disk
                    real(args[0], args[1][: len(args[1]) // 2], args[2])
                os._exit(KILLED)
            return real(*args, **keywords)

        return call


@pytest.fixture
def merging(
    tiny_model: Callable[..., Path],
    trained_adapter: Callable[..., tuple[Path, Any]],
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Merging:
    whole = tiny_model("qwen3_moe", "bfloat16", num_hidden_layers=1, num_experts=2)
    untouched = ("embed_tokens", "lm_head", "norm")
    base = in_shards(whole, tmp_path / "base", lambda name: 1 if any(u in name for u in untouched) else 2)
    adapter, _ = trained_adapter(base)
    monkeypatch.setattr(shard_writer, "_workers", lambda *_: 1)  # the same order of changes in every run
    return Merging(base, adapter, tmp_path / "merged", model_settings(base))


def test_killed_at_any_change_it_is_made_again_the_same(merging: Merging) -> None:
    merging.run("old")
    old = merging.content()
    code, changes = merging.in_child("new", stop_at=None)
    assert (code, merging.key) == (0, "new")
    new = merging.content()
    assert changes > 30
    for moment in range(1, changes + 1):
        shutil.rmtree(merging.place)
        merging.run("old")
        assert merging.content() == old
        code, _ = merging.in_child("new", stop_at=moment)
        assert code == KILLED, moment
        found = merging.key
        assert bool(found) == merging.place.exists(), moment  # never half a folder in its place
        if found:
            assert merging.content() == {"old": old, "new": new}[found], moment
        merging.run("new")
        assert merging.content() == new, moment
    merging.run("old")
    assert merging.beside() == []


@pytest.mark.parametrize("name", ["pwrite", "copy_file_range", "fsync", "ftruncate", "link"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_and_leaves_what_was_there(
    name: str, number: int, code: int, merging: Merging, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging.run("old")
    old, real, calls = merging.content(), getattr(os, name), []

    def full(*args: Any, **keywords: Any) -> Any:
        calls.append(name)
        if len(calls) == number or name in {"ftruncate", "link"}:
            raise OSError(code, os.strerror(code))
        return real(*args, **keywords)

    monkeypatch.setattr(os, name, full)
    with pytest.raises(InputError, match="disk space for the base"):
        merging.run("new")
    assert calls
    assert (merging.key, merging.content()) == ("old", old)
    assert merging.beside() == []


def test_too_little_space_is_seen_before_anything_is_written(
    merging: Merging, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(merging.base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    monkeypatch.setattr(os, "pwrite", lambda *_: pytest.fail("written"))
    with pytest.raises(InputError, match="SFT_OUT_LORA_DIR"):
        merging.run("new")
    assert not merging.place.exists()
    assert merging.beside() == []


def test_another_failure_leaves_nothing_either(merging: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merging.run("new")
    assert not merging.place.exists()
    assert merging.beside() == []


def test_a_base_that_lost_a_file_is_built_again(merging: Merging) -> None:
    merging.run("new")
    whole = merging.content()
    for name in ("model-00002.safetensors", "config.json", "tokenizer.json"):
        if name == "tokenizer.json":
            os.truncate(merging.place / name, 10)
        else:
            (merging.place / name).unlink()
        assert merging.key == ""
        merging.run("new")
        assert merging.content() == whole


def test_a_shard_without_change_is_shared_and_the_rest_is_not(merging: Merging) -> None:
    merging.run("new")
    shared, changed = "model-00001.safetensors", "model-00002.safetensors"
    assert (merging.place / shared).read_bytes() == (merging.base / shared).read_bytes()
    assert (merging.place / changed).stat().st_ino != (merging.base / changed).stat().st_ino


@pytest.mark.parametrize("refused", [{"link"}, {"link", "copy_file_range"}])
def test_file_systems_that_can_do_less(
    refused: set[str], merging: Merging, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging.run("new")
    expected = merging.content()
    shutil.rmtree(merging.place)

    def unsupported(*_: Any) -> Any:
        raise OSError(errno.EXDEV, "not across file systems")

    for name in refused:
        monkeypatch.setattr(os, name, unsupported)
    merging.run("new")
    assert merging.content() == expected


def test_a_tampered_shard_is_named_and_built_again(merging: Merging) -> None:
    merging.run("new")
    whole = merging.content()
    shard = merging.place / "model-00002.safetensors"
    times = shard.stat()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    assert find_merged(merging.place).changed == (shard.name,)
    again = obtain_base(merging.settings, [merging.adapter], merging.place, key="new")
    assert not again.reused
    assert [n for n in again.notices if "built again: model-00002.safetensors changed" in n]
    assert merging.content() == whole


def test_another_link_to_a_shared_shard_is_no_change(merging: Merging) -> None:
    merging.run("new")
    os.link(merging.base / "model-00001.safetensors", merging.place.parent / "of another stage")
    assert merging.key == "new"


def test_two_at_once_the_second_is_told(merging: Merging) -> None:
    with built_aside(merging.place), pytest.raises(InputError, match="another process is building"):
        merging.run("new")
