"""docs/migrating.md says what the import does: its keys are known, here and there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.importing.axolotl import from_axolotl
from lib.importing.draft import StageDraft
from lib.importing.foreign import Section
from lib.importing.llama_factory import from_llama_factory
from lib.settings.stage import KEYS

PAGE = (Path(__file__).parents[3] / "docs/migrating.md").read_text(encoding="utf-8")
# Keys below a data set or of dataset_info.json, which no configuration has at its top.
INNER = {
    *("split", "data_files", "type", "field_messages", "message_property_mappings", "roles_to_train"),
    *("train_on_eos", "shards", "columns", "tags", "num_samples"),
}

Rules = Callable[[Section, StageDraft], None]
TRAINERS: list[tuple[str, Rules, int]] = [
    ("Axolotl", from_axolotl, 55),
    ("LLaMA-Factory", lambda section, draft: from_llama_factory(section, draft, Path("c.yml")), 45),
]
ODD_VALUES = ("x", "", 0, -1.5, True, [1, [2]], {"a": {"b": 1}}, [{}], float("nan"))


def first_column(title: str) -> list[str]:
    section = PAGE.split(f"## {title}, key by key")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    found = [name for cell in cells for name in re.findall(r"`([a-z0-9_]+)(?::[^`]*)?`", cell)]
    return [name for name in dict.fromkeys(found) if name not in INNER]


def test_every_setting_on_the_page_exists() -> None:
    named = set(re.findall(r"\b(?:SFT|MLFLOW)_[A-Z_]*[A-Z]\b", PAGE))
    # SFT_UPSAMPLE_RULE is the page's example of a misspelt key; a guide's variable and a format follow.
    assert named - set(KEYS) - {"SFT_UPSAMPLE_RULE", "SFT_LORA"} == set()


@pytest.mark.parametrize(("title", "rules", "least"), TRAINERS)
def test_every_key_of_a_table_is_known_to_the_import(title: str, rules: Rules, least: int) -> None:
    keys = first_column(title)
    assert len(keys) >= least
    draft = StageDraft()
    rules(Section(dict.fromkeys(keys, 1)), draft)
    assert [entry.key for entry in draft.not_carried if "not known" in entry.advice] == []


@pytest.mark.parametrize("odd", ODD_VALUES, ids=str)
@pytest.mark.parametrize(("title", "rules"), [(title, rules) for title, rules, _ in TRAINERS])
def test_a_value_of_the_wrong_kind_never_breaks_a_rule(title: str, rules: Rules, odd: object) -> None:
    """One key at a time, beside sound ones; settings are judged when the stage is loaded."""
    for key in first_column(title):
        values = {
            "datasets": [{"path": "me/rows"}],
            "dataset": "rows",
            "max_steps": 10,
            "lora_r": 8,
            key: odd,
        }
        rules(Section(values), StageDraft())
    for key in sorted(INNER | {"path"}):
        rules(Section({"datasets": [{"path": "me/rows", key: odd}]}), StageDraft())
