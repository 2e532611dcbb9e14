"""Model cards whose names and paths try to be something else: markup, Python, a shell."""

import ast
import shlex
from typing import Any

import pytest
import yaml

from lib.exporting.export_card import adapter_card, merged_card
from lib.lineage.card import model_card
from lib.lineage.card_text import code, python_text, words, yaml_value

HOSTILE = (
    'out"); import os; os.system("touch fired") #',
    "$(touch fired)",
    "`touch fired`",
    "a'; touch fired; '",
    "--- \n# <script>alert(1)</script> | x",
    "${HF_TOKEN}",
    "- [x](javascript:alert(1))",
    "日本語 モデル",
    "back\\slash",
    "yes: {no: *x}",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_comes_back_as_it_is_and_does_nothing(text: str) -> None:
    assert yaml.safe_load(f"base_model: {yaml_value(text)}") == {"base_model": text}
    assert ast.literal_eval(python_text(text)) == text
    fence = code(text)[: len(code(text)) - len(code(text).lstrip("`"))]
    assert code(text).endswith(fence)
    assert fence not in code(text)[len(fence) : -len(fence)]
    assert "<" not in words(text)
    assert "\n" not in words(text)
    assert "|" not in words(text).replace("\\|", "")


@pytest.mark.parametrize(
    "text", ["assets/tiny-moe", "Qwen/Qwen3-30B-A3B", "/models/qwen_3.5", "output/x_stage1"]
)
def test_ordinary_names_are_left_as_they_are(text: str) -> None:
    assert yaml_value(text) == text
    assert words(text) == text
    assert code(text) == f"`{text}`"


def blocks(card: str, language: str) -> list[str]:
    return [part.split("```")[0] for part in card.split(f"```{language}\n")[1:]]


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\n" not in text])
def test_the_lines_of_a_card_can_be_copied_whatever_the_names(text: str, curriculum: Any) -> None:
    """Python parses to calls with the name as one literal, a shell to the command's own words."""
    from lib.exporting.export import Exported

    curriculum.stage(1)
    record = curriculum.train(1)
    stage = curriculum.surveyed(1)
    object.__setattr__(stage.settings.model, "base_model", text)
    record.base["path"] = record.base["stage0"] = text
    exported = Exported(stage.settings, stage.chain, (record,))
    cards = (
        merged_card(exported, text),
        adapter_card(exported, text, 8),
        model_card(record, curriculum.root / text),
    )
    for card in cards:
        assert yaml.safe_load(card.split("---\n")[1])["base_model"] == text
        for block in blocks(card, "python"):
            called = {node.func.attr for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)}
            assert called == {"from_pretrained"}
        for line in "".join(blocks(card, "bash")).splitlines():
            assert shlex.split(line)[0] in {"vllm", "python", "llama.cpp/build/bin/llama-quantize"}
            assert any(text in word for word in shlex.split(line))
