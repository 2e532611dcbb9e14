"""Folders that are there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from lib.files import built_aside, links_inside, read_json, write_text


def fill(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(text)


@pytest.mark.parametrize("before", ["nothing", "empty", "full"])
def test_a_folder_appears_when_it_is_whole(before: str, tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "model"
    if before != "nothing":
        destination.mkdir(parents=True)
    if before == "full":
        (destination / "old.txt").touch()
    with built_aside(destination) as folder:
        fill(folder, "new")
        assert not (destination / "config.json").exists()
    assert [path.name for path in destination.iterdir()] == ["config.json"]
    assert [path.name for path in destination.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupt_leaves_everything_as_it_was(stop: type[BaseException], tmp_path: Path) -> None:
    destination = tmp_path / "model"
    fill(destination, "old")

    def build() -> None:
        with built_aside(destination) as folder:
            fill(folder, "half")
            raise stop

    with pytest.raises(stop):
        build()
    assert (destination / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    fill(tmp_path / "model.part", "half")
    (tmp_path / "model.part" / "shards").mkdir()
    fill(tmp_path / "model.old", "old")  # killed between the two renames
    with built_aside(destination) as folder:
        assert list(folder.iterdir()) == []
        assert (destination / "config.json").read_text() == "old"
        fill(folder, "new")
    assert (destination / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_at_a_time(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    with built_aside(destination) as folder:
        fill(folder, "first")
        with pytest.raises(BlockingIOError), built_aside(destination):
            pytest.fail("two at once")
    assert (destination / "config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_leads_to_the_place_that_is_filled(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with built_aside(tmp_path / "link") as folder:
        fill(folder, "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "config.json").read_text() == "new"


@pytest.mark.parametrize("suffix", [".part", ".old"])
def test_links_at_the_names_of_its_own_are_not_followed(suffix: str, tmp_path: Path) -> None:
    fill(tmp_path / "precious", "kept")
    (tmp_path / f"model{suffix}").symlink_to(tmp_path / "precious")
    with built_aside(tmp_path / "model") as folder:
        fill(folder, "new")
    assert (tmp_path / "precious" / "config.json").read_text() == "kept"
    assert (tmp_path / "model" / "config.json").read_text() == "new"
    assert not (tmp_path / f"model{suffix}").is_symlink()


@pytest.mark.parametrize("name", ["stage.json", "stage.json.part"])
def test_a_file_is_never_written_through_a_link(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    write_text(tmp_path / "stage.json", "new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "stage.json").read_text() == "new"
    assert not (tmp_path / "stage.json").is_symlink()


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "stage.json", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "stage.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["stage.json"]
    assert (tmp_path / "stage.json").read_text() == "old"


def test_links_inside_a_folder_are_found_and_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "x")
    (tmp_path / "elsewhere" / "deeper").symlink_to(tmp_path)
    folder = tmp_path / "stage"
    fill(folder, "x")
    assert links_inside(folder) == []
    (folder / "checkpoint-2").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.json").symlink_to(tmp_path / "nowhere")
    assert links_inside(folder) == [folder / "checkpoint-2", folder / "gone.json"]
    (tmp_path / "link").symlink_to(folder)
    assert links_inside(tmp_path / "link") == [tmp_path / "link"]
    assert links_inside(tmp_path / "nowhere") == []


def test_json_nested_beyond_reason_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")
