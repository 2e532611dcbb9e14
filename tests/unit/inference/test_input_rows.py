"""Rows of every format as questions, and all that is wrong with them at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.inference.input_rows import check_rows, read_input
from lib.settings import InputError


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def problems(path: Path) -> list[Any]:
    with pytest.raises(InputError) as caught:
        read_input(path)
    return list(caught.value.problems)


def test_questions_with_and_without_references(tmp_path: Path) -> None:
    rows = [
        {"prompt": "こんにちは"},
        {"instruction": "i", "input": "x", "output": {"persons": []}, "metadata": {"format": "json"}},
        {"messages": [{"role": "user", "content": "q"}], "id": 5},
    ]
    read = read_input(written(tmp_path, *rows))
    assert list(read.rows) == rows
    assert read.referenced == (1,)
    assert [example.messages[-2].content for example in read.examples] == ["こんにちは", "i\n\nx", "q"]
    assert read.examples[1].labels[0].value == "json"


def test_a_system_prompt_goes_to_rows_without_one(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
    read = read_input(written(tmp_path, {"prompt": "q"}, {"messages": own}), "be brief")
    assert [example.messages[0].content for example in read.examples] == ["be brief", "own"]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"prompt": "q"}, {"text": "plain"}, {"prompt": "q", "answer": "a"}, {"prompt": " "}
    )
    found = {problem.where: problem for problem in problems(path)}
    assert found.keys() == {f"{path}#1", f"{path}#2", f"{path}#3"}
    assert found[f"{path}#1"].expected == "messages, conversations, prompt, or instruction"
    assert (found[f"{path}#2"].value, found[f"{path}#2"].remedy) == ("column answer", "rename the column")
    assert found[f"{path}#3"].expected == "a question that is not empty"


def test_no_row_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": \n{"prompt": "q"}\n')
    assert [problem.remedy for problem in problems(path)] == ["mend or remove it"]


def test_half_a_surrogate_pair_anywhere_in_a_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "note": "\\ud800"}\n')
    assert "surrogate" in problems(path)[0].expected


def test_broken_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q"}\n{"prompt": \n[]\n')
    assert [problem.where for problem in problems(path)] == [f"{path}:2", f"{path}:3"]


@pytest.mark.parametrize("name", ["absent.jsonl", "rows.txt", ""])
def test_files_that_will_not_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.txt").write_text("q")
    assert problems(tmp_path / name)[0].key == "--input"


def test_rows_that_the_template_refuses_are_all_named(
    tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    chat = ChatFormat.load(tiny_model("qwen3"), str(template))
    assert chat is not None
    system = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}
    path = written(tmp_path, system, {"prompt": "q"}, system)
    with pytest.raises(InputError) as caught:
        check_rows(read_input(path), chat)
    assert [problem.where for problem in caught.value.problems] == [f"{path}#0", f"{path}#2"]
    assert "--chat-template" in caught.value.problems[0].remedy
    check_rows(read_input(written(tmp_path, {"prompt": "q"})), chat)
