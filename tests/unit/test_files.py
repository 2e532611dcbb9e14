"""Folders that are there whole or not at all."""

from pathlib import Path

import pytest

from lib.files import built_aside


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
