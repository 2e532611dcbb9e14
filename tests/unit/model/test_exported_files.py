import json
from pathlib import Path

import pytest

from lib.model.exported_files import add_end_tokens, take_tokenizer


@pytest.mark.parametrize(
    ("known", "expected"), [(None, [7, 3]), (3, [7, 3]), (9, [7, 3, 9]), ([3, 9], [7, 3, 9])]
)
def test_generation_ends_where_template_or_base_end(
    known: object, expected: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": known, "temperature": 0.6}))
    add_end_tokens(tmp_path, (7, 3))
    assert json.loads(path.read_text()) == {"eos_token_id": expected, "temperature": 0.6}


def test_a_base_without_generation_settings_gets_some(tmp_path: Path) -> None:
    add_end_tokens(tmp_path, (7,))
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [7]}


def test_the_tokenizer_of_the_stage_takes_the_place_of_that_of_the_base(tmp_path: Path) -> None:
    stage, model = tmp_path / "stage", tmp_path / "model"
    stage.mkdir()
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "stage.json"):
        (stage / name).write_text("stage")
    for name in ("tokenizer.json", "vocab.json", "config.json", "chat_template.jinja"):
        (model / name).write_text("base")
    take_tokenizer(stage, model)
    assert {path.name: path.read_text() for path in model.iterdir()} == {
        "tokenizer.json": "stage",
        "tokenizer_config.json": "stage",
        "chat_template.jinja": "stage",
        "config.json": "base",
    }
