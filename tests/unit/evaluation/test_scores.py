import pytest

from lib.evaluation.generation import Answer, Question
from lib.evaluation.scores import sample_table, score

MARKERS = ("Output:",)


def answer(text: str, tokens: int = 4, stopped: bool = True, **labels: str) -> Answer:
    return Answer(Question("s#1", [1], "reference", labels), text, tokens, stopped)


def test_parse_rate_overall_and_per_format() -> None:
    answers = [
        answer("Output: {}", format="json", tokens=2),
        answer("Output: {", format="json", stopped=False),
        answer("Think.\nOutput:\na: 1", format="yaml"),
        answer("prose", format="docx"),
        answer("prose", tokens=10),
    ]
    assert score(answers, MARKERS) == {
        "gen_samples": 5.0,
        "gen_end_stop_rate": 0.8,
        "gen_mean_new_tokens": pytest.approx(4.8),
        "gen_parse_rate": pytest.approx(2 / 3),
        "gen_parse_rate/json": 0.5,
        "gen_parse_rate/yaml": 1.0,
    }


def test_without_known_formats_there_is_no_parse_rate() -> None:
    assert "gen_parse_rate" not in score([answer("x", format="docx")], MARKERS)
    assert score([], MARKERS) == {"gen_samples": 0.0, "gen_end_stop_rate": 0.0, "gen_mean_new_tokens": 0.0}


def test_samples_are_plain_rows() -> None:
    json_row, other = sample_table(
        [answer("So Output: {}", format="json"), answer("hm", stopped=False)], MARKERS
    )
    assert json_row == {
        "row": "s#1",
        "labels": {"format": "json"},
        "reference": "reference",
        "answer": "So Output: {}",
        "document": "{}",
        "tokens": 4,
        "stopped": True,
        "parses": True,
    }
    assert (other["parses"], other["stopped"]) == (None, False)
