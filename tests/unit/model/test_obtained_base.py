"""A base by its Hub id is merged from the files of the cache, which are links."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.base_files import obtain_base_folder, side_files
from lib.model.merge import obtain_base
from lib.settings import InputError, ModelSettings

NAME, COMMIT = "owner/model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def put_into_cache(model: Path, cache: Path) -> Path:
    repository = cache / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for path in model.iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(repository / "blobs" / path.name, snapshot))
    return snapshot


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert obtain_base_folder(ModelSettings(base_model=str(tmp_path))) == tmp_path


def test_a_base_of_the_hub_is_merged_from_the_cache(
    cache: Path,
    tiny_model: Callable[..., Path],
    trained_adapter: Callable[..., Any],
    model_settings: Any,
    tmp_path: Path,
) -> None:
    base = tiny_model("qwen3_moe", "bfloat16")
    snapshot = put_into_cache(base, cache)
    for revision in ("", "main"):
        assert obtain_base_folder(ModelSettings(base_model=NAME, base_revision=revision)) == snapshot
    adapter, _ = trained_adapter(base)
    obtain_base(model_settings(Path(NAME)), [adapter], tmp_path / "of the hub", key="k")
    obtain_base(model_settings(base), [adapter], tmp_path / "of the folder", key="k")
    for path in (tmp_path / "of the folder").iterdir():
        merged = tmp_path / "of the hub" / path.name
        assert not merged.is_symlink()
        if path.name != "merge.json":
            assert merged.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("lost", ["model.safetensors", None])
def test_what_the_cache_has_only_in_part_would_be_downloaded(
    lost: str | None, cache: Path, tiny_model: Callable[..., Path]
) -> None:
    """There is no network here: the attempt ends in the message for a model that cannot be fetched."""
    if lost:
        (put_into_cache(tiny_model("qwen3"), cache) / lost).unlink()
    with pytest.raises(InputError, match="SFT_BASE_MODEL"):
        obtain_base_folder(ModelSettings(base_model=NAME))


def test_files_beside_the_weights(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    wanted = [
        "LICENSE",
        "additional_chat_templates/tool.jinja",
        "config.json",
        "merges.txt",
        "tokenizer.model",
    ]
    for name in [*wanted, "model.safetensors", "pytorch_model.bin", "README.md", ".gitattributes"]:
        (tmp_path / name).touch()
    (tmp_path / "original.json").mkdir()
    assert [str(path) for path in side_files(tmp_path)] == wanted
