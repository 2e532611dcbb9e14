"""The file as a whole: nothing is lost, nothing secret is in it, nothing is overwritten."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lib.importing import import_config
from lib.settings import InputError
from lib.settings.env_file import read_env_file
from lib.settings.env_text import quoted

AXOLOTL = """
base_model: me/base
adapter: lora
learning_rate: 1e-4
datasets: [{path: me/rows}]
hub_model_id: me/押し上げ
hub_token: hf_secret
special_tokens: {pad_token: <pad>}
wandb_project:
frobnicate: {深い: [1, 2]}
peft_use_dora: false
mlflow_tracking_uri: https://me:geheim@host/store
"""
Import = Callable[..., Any]


def test_every_key_is_somewhere_in_the_file(imported: Import) -> None:
    text = imported(AXOLOTL).text
    assert [key for key in yaml.safe_load(AXOLOTL) if key not in text] == []
    assert "押し上げ" in text
    assert "深い" in text
    assert "<pad>" in text


def test_a_key_is_not_both_to_be_dealt_with_and_to_be_left(imported: Import) -> None:
    """The first key of those that are not carried over stands right behind the last of the sources."""
    draft = imported(AXOLOTL.replace("hub_model_id", "frob: 1\nhub_model_id")).report.draft
    assert draft.not_carried[0].key == "frob"
    assert not {entry.key for entry in draft.not_carried} & draft.not_needed.keys()


def test_secrets_are_not_shown(imported: Import) -> None:
    stage = imported(AXOLOTL)
    assert "hf_secret" not in stage.text
    # The address itself is a setting; its comment is not the place for the password.
    assert stage.text.count("geheim") == 1


def test_every_setting_says_where_it_comes_from(imported: Import) -> None:
    lines = imported(AXOLOTL).text.splitlines()
    settings = [position for position, line in enumerate(lines) if line.startswith(("SFT_", "MLFLOW_"))]
    assert len(settings) > 8
    for position in settings:
        assert "  # " in lines[position] or lines[position - 1].startswith("# "), lines[position]


def test_nothing_is_overwritten_and_nothing_is_left_behind_by_a_refusal(tmp_path: Path) -> None:
    config, folder = tmp_path / "c.yml", tmp_path / "out"
    config.write_text(AXOLOTL + "lora_r: none\n", encoding="utf-8")
    with pytest.raises(InputError, match="SFT_LORA_R, from lora_r: none"):
        import_config(config, folder)
    assert not folder.exists()
    config.write_text(AXOLOTL, encoding="utf-8")
    first = import_config(config, folder).path.read_bytes()
    with pytest.raises(InputError, match="nothing is overwritten"):
        import_config(config, folder)
    assert (folder / "stage1.env").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", "YAML"),
        ("- a\n- b\n", "keys and values"),
        (
            "learning_rate: 1\ndataset_name: x\nmodel_name_or_path: y\n",
            "dataset_name, learning_rate, model_name",
        ),
        (AXOLOTL + "seed: 1\nseed: 2\n", "seed given twice"),
    ],
)
def test_files_that_are_neither(tmp_path: Path, content: str, says: str) -> None:
    config = tmp_path / "c.yml"
    config.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        import_config(config, tmp_path / "out")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1))
def test_values_come_back_from_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "quoted.env"
    path.write_text(f"KEY={quoted(text)}  # comment 'x\nNEXT=1\n", encoding="utf-8")
    assert {key: value for key, (value, _) in read_env_file(path).items()} == {"KEY": text, "NEXT": "1"}
