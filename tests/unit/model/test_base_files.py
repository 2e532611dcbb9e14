from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from lib.model import base_files
from lib.model.base_files import base_folder, base_is_here, fetch_base, hub_snapshot, tokenizer_files
from lib.settings import InputError, ModelSettings


def test_what_is_no_hub_id_is_not_looked_up(tmp_path: Path) -> None:
    for name in (str(tmp_path), "a/b/c", "owner/model with blanks"):
        assert hub_snapshot(name, "") is None


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    model = ModelSettings(base_model=str(tmp_path))
    assert base_is_here(model)
    assert base_folder(model) == tmp_path


@pytest.mark.parametrize(
    ("names", "here"),
    [
        (["config.json", "tokenizer.json"], False),
        (["config.json", "model.safetensors"], True),
    ],
)
def test_a_snapshot_is_here_with_its_weights(
    names: list[str], here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(base_files, "hub_snapshot", lambda name, revision: tmp_path)
    assert base_is_here(ModelSettings(base_model="owner/model")) is here


def test_a_download_asks_for_what_is_read_and_for_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **how: asked.update(how, name=name)
    )
    monkeypatch.setattr(base_files, "base_is_here", lambda model: True)
    fetch_base(ModelSettings(base_model="owner/model", base_revision="v2"))
    assert (asked["name"], asked["revision"]) == ("owner/model", "v2")
    assert not [pattern for pattern in asked["allow_patterns"] if pattern in {"*", "*.bin", "*.py"}]


def test_a_failed_download_is_the_users_business(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **how: Any) -> None:
        raise OSError("401 gated")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match="401 gated"):
        fetch_base(ModelSettings(base_model="owner/model"))


def test_a_repository_without_safetensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: None)
    with pytest.raises(InputError, match="safetensors"):
        fetch_base(ModelSettings(base_model="owner/model"))


def test_tokenizer_files_are_told_from_the_model(tmp_path: Path) -> None:
    theirs = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model"}
    for name in (*theirs, "config.json", "merge.json", "stage.json", "chat_template.jinja", "README.md"):
        (tmp_path / name).touch()
    assert {path.name for path in tokenizer_files(tmp_path)} == theirs
