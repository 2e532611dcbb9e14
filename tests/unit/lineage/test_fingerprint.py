import json
import os
from pathlib import Path

import pytest

from lib.lineage import file_hashes, fingerprint
from lib.lineage.fingerprint import (
    adapter_fingerprint,
    base_fingerprint,
    differences,
    json_sha256,
    template_fingerprint,
    tokenizer_fingerprint,
)
from lib.model import base_files
from lib.settings import ModelSettings

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "vocab.txt")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    for name in FILES:
        (base / name).write_text(name)
    return base


def content(name: object, revision: str = "") -> str:
    return base_fingerprint(
        ModelSettings(base_model=str(name), base_revision=revision), thorough=True
    ).content


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors"])
def test_a_base_is_known_by_the_contents_of_its_files(name: str, folder: Path) -> None:
    before = content(folder)
    assert content(folder) == before
    (folder / name).write_text("changed")
    changed = content(folder)
    assert changed != before
    (folder / name).unlink()
    assert content(folder) not in {before, changed}


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_a_tokenizer_is_known_apart_from_the_base(name: str, folder: Path) -> None:
    base, tokenizer = content(folder), tokenizer_fingerprint(folder)
    (folder / name).write_text("changed")
    assert tokenizer_fingerprint(folder) != tokenizer
    assert content(folder) == base


def test_a_template_is_known_apart_from_the_tokenizer(folder: Path) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({"eos_token": "</s>", "chat_template": "one"}))
    tokenizer, template = tokenizer_fingerprint(folder), template_fingerprint(folder, "")
    config.write_text(json.dumps({"chat_template": "two", "eos_token": "</s>"}))
    assert tokenizer_fingerprint(folder) == tokenizer
    assert template_fingerprint(folder, "") != template
    config.write_text(json.dumps({"eos_token": "<|end|>", "chat_template": "one"}))
    assert tokenizer_fingerprint(folder) != tokenizer
    assert template_fingerprint(folder, "") == template
    config.write_text("{")
    assert template_fingerprint(folder, "") == "unreadable"
    assert tokenizer_fingerprint(folder) != tokenizer


def test_the_template_in_use_counts_whatever_it_is_called(folder: Path) -> None:
    own = folder / "chat_template.jinja"
    own.write_text("{{ messages }}")
    moved = folder.parent / "mine.jinja"
    moved.write_text("{{ messages }}")
    assert template_fingerprint(folder, str(moved)) == template_fingerprint(folder, "")
    moved.write_text("{{ messages[0] }}")
    assert template_fingerprint(folder, str(moved)) != template_fingerprint(folder, "")
    assert template_fingerprint(folder, "chatml") not in {template_fingerprint(folder, ""), "unreadable"}
    assert template_fingerprint(folder, "nowhere.jinja") == "unreadable"


def test_what_is_no_part_of_the_model_does_not_count(folder: Path) -> None:
    before = content(folder), tokenizer_fingerprint(folder)
    (folder / "README.md").write_text("words")
    (folder / "pytorch_model.bin").write_text("never read")
    (folder / "merge.json").write_text("{}")
    assert (content(folder), tokenizer_fingerprint(folder)) == before


def test_the_place_of_the_folder_does_not_count(folder: Path) -> None:
    before = content(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert content(moved) == before


def test_a_large_file_is_read_by_a_run_and_not_by_a_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (fingerprint, file_hashes):
        monkeypatch.setattr(module, "REMEMBERED_BYTES", 100)
    monkeypatch.setattr(fingerprint, "END_BYTES", 10)
    weights = folder / "model.safetensors"
    model = ModelSettings(base_model=str(folder))
    weights.write_bytes(b"a" * 200)
    os.utime(weights, (1, 1))
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    planned = base_fingerprint(model, thorough=False)
    assert (planned.content, bool(planned.outline)) == ("", True)
    read = base_fingerprint(model, thorough=True)
    assert base_fingerprint(model, thorough=False) == read
    assert read.outline == planned.outline

    weights.write_bytes(b"a" * 100 + b"b" + b"a" * 99)
    tampered = base_fingerprint(model, thorough=False)
    assert (tampered.content, tampered.outline) == ("", planned.outline)
    assert base_fingerprint(model, thorough=True).content not in {"", read.content}
    for ends in (b"a" * 201, b"b" + b"a" * 199, b"a" * 199 + b"b"):
        weights.write_bytes(ends)
        assert base_fingerprint(model, thorough=False).outline != planned.outline


def test_a_hub_model_is_known_by_its_files_and_before_that_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = base_fingerprint(ModelSettings(base_model="owner/model", base_revision="v2"), thorough=True)
    assert (absent.content, absent.outline, absent.name) == ("", "", "owner/model@v2")
    monkeypatch.setattr(base_files, "hub_snapshot", lambda name, revision: folder)
    assert content("owner/model") == content(folder)
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert content("owner/model") == "", "a download that stopped half-way"


def test_an_adapter_is_known_by_weights_and_configuration(tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"

    def fingerprint_with(weights: bytes, **keys: object) -> str:
        (tmp_path / "adapter_model.safetensors").write_bytes(weights)
        config.write_text(json.dumps(keys))
        return adapter_fingerprint(tmp_path)

    one = fingerprint_with(b"one", lora_alpha=8, base_model_name_or_path="here")
    assert fingerprint_with(b"one", lora_alpha=8, base_model_name_or_path="there") == one
    assert len({one, fingerprint_with(b"two", lora_alpha=8), fingerprint_with(b"one", lora_alpha=16)}) == 3


def test_canonical_json() -> None:
    assert json_sha256({"a": 1, "b": ["名"]}) == json_sha256({"b": ["名"], "a": 1})
    assert json_sha256([1, 2]) != json_sha256([2, 1])


def test_differences_in_both_directions() -> None:
    recorded, current = {"same": 1, "changed": 1, "gone": 1}, {"new": 2, "changed": 2, "same": 1}
    assert differences(recorded, current) == [("new", None, 2), ("changed", 1, 2), ("gone", 1, None)]
