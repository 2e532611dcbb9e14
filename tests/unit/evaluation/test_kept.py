"""Finished evaluations of an unfinished stage: kept, and never believed when they were changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.evaluation.kept import forget_results, kept_result

RESULT = {"metrics": {"heldout_loss": 1.25}, "intervals": {"a": [0.1, 0.3]}, "samples": [{"row": "日本語#1"}]}


class Evaluated:
    """Counts how often it was evaluated."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return RESULT


def test_an_evaluation_is_not_done_twice(tmp_path: Path) -> None:
    evaluate = Evaluated()
    for key in ("before", "after", "before"):
        assert kept_result(tmp_path, [key, {"lr": "1"}], evaluate, writes=True) == RESULT
    assert evaluate.times == 2
    forget_results(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_one_process_writes(tmp_path: Path) -> None:
    kept_result(tmp_path, "key", Evaluated(), writes=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{}", "[]", "", "nonsense", '{"result": 1, "checksum": 1}', None])
def test_what_was_changed_is_evaluated_again(tmp_path: Path, content: str | None) -> None:
    evaluate = Evaluated()
    kept_result(tmp_path, "key", evaluate, writes=True)
    (path,) = tmp_path.iterdir()
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("1.25", "1.24") if content is None else content, encoding="utf-8")
    assert kept_result(tmp_path, "key", evaluate, writes=True) == RESULT
    assert evaluate.times == 2
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(whole)
