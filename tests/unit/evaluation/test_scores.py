import json
import random
from pathlib import Path
from typing import Any

import pytest

from lib.evaluation.answers import Answer, Question
from lib.evaluation.scores import (
    BY_LABEL,
    HEADLINE,
    TASKS,
    guess_task,
    headline,
    judge_answer,
    perfect_scores,
    recompute,
    sample_table,
    score,
)
from lib.settings.metrics import METRICS, WITHOUT_DIRECTION, direction

MARKERS = ("Output:",)
RECORD = json.dumps(
    {
        "persons": [{"name": "山田", "act": "窃盗", "is_offender": True}],
        "occured_locations": ["大阪"],
        "police_departments": [],
    },
    ensure_ascii=False,
)
NOBODY = '{"persons": [], "occured_locations": [], "police_departments": []}'
REFERENCES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "structured": [
        ('Think.\nOutput:\n{"名前": "花子", "a": [1, 2]}', {"format": "json", "complexity": "simple"}),
        ("Output:\n名前: 花子\nb: x", {"format": "yaml", "complexity": "complex"}),
        ('Output:\na = 1\n[b]\nc = "x"', {"format": "toml", "complexity": "complex"}),
        ("Output:\n<人><名前>花子</名前></人>", {"format": "xml", "complexity": "simple"}),
        ("Output:\n名前,b\n花子,2", {"format": "csv", "complexity": "simple"}),
    ],
    "extraction": [(RECORD, {"task": "extract"}), (NOBODY, {"task": "none"})],
    "chat": [("承知しました。", {}), ("東京は晴れです。", {})],
}
COMPARED = (
    "gen_parse_rate",
    "gen_key_path_score",
    "gen_leaf_f1",
    "gen_exact_match_rate",
    "gen_structeval_score",
)
STYLE = r"(です|ました)。$"


def questions(task: str) -> list[Question]:
    return [
        Question(f"s#{i}", [1], reference, labels, f"prompt {i}")
        for i, (reference, labels) in enumerate(REFERENCES[task])
    ]


def answered(task: str, text: str | None = None, **more: Any) -> list[Answer]:
    """Every question with the same text, or with its own reference."""
    fields = {"tokens": 4, "stopped": True, **more}
    return [Answer(q, q.reference if text is None else text, **fields) for q in questions(task)]


def answer(text: str, tokens: int = 4, stopped: bool = True, **labels: str) -> Answer:
    return Answer(Question("s#1", [1], "Output: {}", labels), text, tokens, stopped)


def test_parse_rate_overall_and_per_format() -> None:
    answers = [
        answer("Output: {}", format="json", tokens=2),
        answer("Output: {", format="json", stopped=False),
        answer("Think.\nOutput:\na: 1", format="yaml"),
        answer("prose", format="docx"),
        answer("  ", tokens=10),
    ]
    metrics = score(answers, "structured", MARKERS).metrics
    expected = {
        "gen_samples": 5.0,
        "gen_end_stop_rate": 0.8,
        "gen_truncation_rate": 0.2,
        "gen_mean_new_tokens": 4.8,
        "gen_empty_rate": 0.2,
        "gen_parse_rate": 2 / 3,
        "gen_parse_rate/json": 0.5,
        "gen_parse_rate/yaml": 1.0,
        "gen_exact_match_rate": 1 / 3,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_without_known_formats_there_is_no_parse_rate() -> None:
    assert "gen_parse_rate" not in score([answer("x", format="docx")], "structured", MARKERS).metrics
    nothing = score([], "structured", MARKERS)
    assert (nothing.metrics, nothing.intervals) == ({"gen_samples": 0.0}, {})


@pytest.mark.parametrize("task", TASKS)
def test_perfect_answers_score_best_on_every_metric(task: str) -> None:
    metrics = perfect_scores(questions(task), task, MARKERS, STYLE).metrics
    described = {name for name in metrics if name.split("/")[0] in WITHOUT_DIRECTION}
    best = {name: float(direction(name) == "max") for name in metrics if name not in described}
    assert {name: metrics[name] for name in best} == pytest.approx(best)
    assert metrics["gen_samples"] == len(REFERENCES[task])
    assert headline(task, STYLE) in metrics
    assert HEADLINE[task] in metrics


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "!",
            "Here is the document that you asked for.",
            "{}",
            '{"a": "b"}',
            "prompt 0",
            "<a/>",
            "x,y\n1,2",
        ),
        "[" * 10_000,
        "<think>Output: {",
    ],
)
def test_garbage_looks_bad_on_the_metrics_that_compare_content(task: str, text: str) -> None:
    metrics = score(answered(task, text), task, MARKERS, STYLE).metrics
    assert metrics[headline(task, STYLE)] <= 0.1
    content = ("gen_leaf_f1", "gen_exact", "gen_all", "gen_offender", "gen_chrf", "gen_style", "gen_schema")
    assert not {name: value for name, value in metrics.items() if name.startswith(content) and value > 0.1}
    # A share of paths counts keys such as `a` that any document may have; StructEval gives 0.2 for prose.
    shares = [metrics[n] for n in ("gen_key_path_score", "gen_structeval_score") if n in metrics]
    assert all(value < 0.35 for value in shares)
    assert metrics.get("gen_fp_rate_on_negative", 1.0) == 1.0


def test_parse_rate_of_constant_garbage_is_that_of_one_format_at_most() -> None:
    for text in ("Here is the document that you asked for.", "prompt 0", ""):
        assert score(answered("structured", text), "structured", MARKERS).metrics["gen_parse_rate"] == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_known_with_its_direction(task: str) -> None:
    half = [*answered(task), *answered(task, "", stopped=False)]
    for name in score(half, task, MARKERS, STYLE).metrics:
        assert name.split("/")[0] in {*METRICS, *WITHOUT_DIRECTION}, name


@pytest.mark.parametrize("task", TASKS)
def test_the_table_is_plain_and_gives_every_metric_again(task: str) -> None:
    answers = [*answered(task), *answered(task, "{", tokens=9, stopped=False)]
    scores = score(answers, task, MARKERS, STYLE)
    written = json.dumps(sample_table(answers, scores), ensure_ascii=False, allow_nan=False)
    assert recompute(json.loads(written)) == scores.metrics
    assert set(scores.intervals) == set(scores.metrics) - {"gen_samples"}
    assert all(low <= high for low, high in scores.intervals.values())


@pytest.mark.parametrize("task", TASKS)
def test_the_order_of_answers_does_not_matter(task: str) -> None:
    answers = [*answered(task), *answered(task, "東京"), *answered(task, "{}", stopped=False)]
    shuffled = list(answers)
    random.Random(3).shuffle(shuffled)
    assert score(answers, task, MARKERS, STYLE).metrics == score(shuffled, task, MARKERS, STYLE).metrics


def test_samples_hold_everything_about_a_row() -> None:
    answers = answered("structured", 'So\nOutput: {"名前": "太郎", "a": [1]}')[:1]
    (row,) = sample_table(answers, score(answers, "structured", MARKERS))
    assert {key: row[key] for key in row if key not in ("tally", "verdict")} == {
        "row": "s#0",
        "labels": {"format": "json", "complexity": "simple"},
        "prompt": "prompt 0",
        "reference": REFERENCES["structured"][0][0],
        "answer": 'So\nOutput: {"名前": "太郎", "a": [1]}',
        "document": '{"名前": "太郎", "a": [1]}',
        "tokens": 4,
        "stopped": True,
    }
    assert row["tally"]["gen_leaf_f1"] == [2.0, 5.0]
    assert row["verdict"]["wrong_values"] == [["名前", "花子", "太郎"]]
    assert row["verdict"]["missing_paths"] == ["a[1]"]


def test_labels_other_than_the_format_are_groups() -> None:
    metrics = perfect_scores(questions("structured"), "structured", MARKERS).metrics
    assert {name for name in metrics if name.startswith("gen_leaf_f1/")} == {
        *(f"gen_leaf_f1/{name}" for name in ("json", "yaml", "toml", "xml", "csv")),
        *(f"gen_leaf_f1/complexity/{name}" for name in ("simple", "complex")),
    }


def test_the_task_is_what_most_rows_look_like() -> None:
    for task in TASKS:
        assert guess_task(questions(task)) == task
    assert guess_task([]) == "chat"
    assert guess_task([*questions("chat"), questions("structured")[0]]) == "chat"
    assert guess_task([*questions("chat")[:1], *questions("structured")[:2]]) == "structured"
    assert guess_task([*questions("chat"), questions("extraction")[0]]) == "chat"
    persons_in_yaml = Question("s#1", [1], "Output:\npersons: []", {"format": "yaml"})
    assert guess_task([persons_in_yaml]) == "structured"


def test_the_headline_of_chat_is_its_style_if_there_is_one() -> None:
    assert headline("chat", "") == "gen_chrf"
    assert headline("chat", STYLE) == "gen_style_rate"
    assert headline("structured", STYLE) == "gen_leaf_f1"
    assert set(HEADLINE) == set(BY_LABEL) == set(TASKS)


def test_another_task_is_the_programmers_error() -> None:
    with pytest.raises(KeyError):
        judge_answer(answer("x"), "poetry", MARKERS, "")


def test_real_references_are_read_but_for_those_that_are_broken(shared_data: Path) -> None:
    """64 XML answers of this data set close tags that were never opened."""
    import pyarrow.parquet as parquet

    rows = parquet.read_table(shared_data / "structeval_sft/train.parquet").to_pylist()[:800]
    asked = [
        Question(str(i), [1], row["messages"][-1]["content"], {"format": row["metadata"]["format"]})
        for i, row in enumerate(rows)
    ]
    scores = perfect_scores(asked, "structured", MARKERS)
    assert guess_task(asked) == "structured"
    broken = [
        q for q, one in zip(asked, scores.judgements, strict=True) if "unusable_reference" in one.verdict
    ]
    assert {question.labels["format"] for question in broken} == {"xml"}
    assert 0.01 < scores.metrics["gen_unusable_reference_rate"] < 0.02
    best = {m: v for m, v in scores.metrics.items() if m.split("/")[0] in COMPARED}
    assert best == dict.fromkeys(best, 1.0)
