import pytest

from lib.evaluation.formats import read_document
from lib.evaluation.structeval import structeval_score


def scored(text: str, reference: str, format_name: str) -> float | None:
    return structeval_score(text, read_document(reference, format_name), format_name)


@pytest.mark.parametrize(
    ("format_name", "reference", "text", "share"),
    [
        ("json", '{"a": {"b": 1}, "c": [1]}', '{"a": {"b": "other"}, "c": [2]}', 4 / 4),
        ("json", '{"a": {"b": 1}, "c": [1]}', '{"a": {}, "c": []}', 2 / 4),
        ("json", '{"a": 1}', '{"a": NaN}', 1),
        ("yaml", "a: 1\nb: 2", "Nothing but prose.", 0),
        ("yaml", "a: 1\nb: 2", "a: 1\na: 1", 1 / 2),
        ("csv", "a,b\n1,2", "a,b", 1),
        ("csv", "a,b\n1,2", "a,x\n1\n2,3,4", 1 / 2),
        ("csv", "a,b\n1,2", "Nothing but prose.", 0),
        ("xml", "<r><x id='1'/></r>", "<r><x><id>7</id></x></r>", 3 / 3),
        ("toml", '["名前"]\n"姓" = "山田"', '["名前"]\n"姓" = "田中"', 1),
    ],
)
def test_paths_count_for_four_fifths_and_values_for_nothing(
    format_name: str, reference: str, text: str, share: float
) -> None:
    assert scored(text, reference, format_name) == pytest.approx(0.2 + 0.8 * share)


@pytest.mark.parametrize(
    ("format_name", "reference", "text"),
    [
        ("json", '{"a": 1}', "prose"),
        ("json", '{"a": 1}', "[" * 10_000),
        ("yaml", "a: 1", "a: [1"),
        ("yaml", "a: 1", "b: &x [1]\na: *x"),
        ("toml", "a = 1", "a: 1"),
        ("xml", "<a/>", "<a>"),
        ("csv", "a,b\n1,2", ""),
    ],
)
def test_what_does_not_load_scores_nothing(format_name: str, reference: str, text: str) -> None:
    assert scored(text, reference, format_name) == 0.0


def test_without_paths_there_is_nothing_to_score() -> None:
    assert scored("3", "3", "json") is None
    assert scored("{}", "{}", "json") is None
