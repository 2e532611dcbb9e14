import time
from collections import Counter

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation.chat_style import chrf, judge
from lib.evaluation.tally import ratios


def naive_chrf(answer: str, reference: str) -> float:
    """Popović 2015: mean precision and recall over the orders that both texts have, F with beta 2."""
    answer, reference = ("".join(text.split()) for text in (answer, reference))
    precisions, recalls = [], []
    for order in range(1, 7):
        given = Counter(answer[i : i + order] for i in range(len(answer) - order + 1))
        wanted = Counter(reference[i : i + order] for i in range(len(reference) - order + 1))
        if given and wanted:
            shared = sum((given & wanted).values())
            precisions.append(shared / sum(given.values()))
            recalls.append(shared / sum(wanted.values()))
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


@settings(max_examples=100, deadline=None)
@given(st.text("ab 花子。", max_size=12), st.text("ab 花子。", max_size=12))
def test_chrf_agrees_with_its_definition(answer: str, reference: str) -> None:
    assert chrf(answer, reference) == pytest.approx(naive_chrf(answer, reference), abs=1e-6)


def test_chrf_runs_from_zero_to_one() -> None:
    assert chrf("東京は晴れです。", "東京は晴れです。") == pytest.approx(1.0)
    assert chrf("xyz", "東京は晴れです。") == 0.0
    assert 0 < chrf("東京は雨です。", "東京は晴れです。") < 1


def test_the_metric_is_the_mean_over_rows() -> None:
    rows = [judge("abc", "abc", "").tally, judge("xyz", "abc", "").tally]
    assert ratios(rows) == pytest.approx({"gen_unusable_reference_rate": 0.0, "gen_chrf": 0.5})


@pytest.mark.parametrize(
    ("answer", "style", "kept"),
    [
        ("承知しました。", r"です。$|ました。$", 1),
        ("了解。", r"です。$|ました。$", 0),
        ("Yes, sir.\n", r"sir\.$", 1),
        ("<think>no sir here</think>Yes.", "sir", 0),
        ("fine", r"^(?!.*bad)", 1),
        ("", r"^(?!.*bad)", 0),
        ("   ", ".*", 0),
    ],
)
def test_a_style_is_a_regular_expression_that_is_found(answer: str, style: str, kept: int) -> None:
    one = judge(answer, "reference", style)
    assert one.tally["gen_style_rate"] == (kept, 1)
    assert one.verdict["style"] is bool(kept)


def test_without_a_style_there_is_no_style_rate() -> None:
    assert "gen_style_rate" not in judge("a", "b", "").tally


def test_an_empty_reference_is_counted_and_compared_with_nothing() -> None:
    one = judge("an answer", "<think>all thought</think> \n", "answer")
    assert one.tally == {"gen_unusable_reference_rate": (1, 1), "gen_style_rate": (1, 1)}
    assert one.verdict["unusable_reference"] == "empty"


def test_what_backtracks_without_end_counts_as_not_matching() -> None:
    started = time.thread_time()
    one = judge("a" * 5_000 + "!", "reference", r"^(a|a)*(a|a)*(a|a)*$")
    assert time.thread_time() - started < 10
    assert one.tally["gen_style_rate"] == (0, 1)
    assert "took longer" in one.verdict["error"]


def test_a_megabyte_is_judged_in_bounded_time() -> None:
    started = time.thread_time()
    one = judge("花子は本を読む。" * 130_000, "花子は本を読んだ。" * 130_000, "本")
    assert time.thread_time() - started < 10
    assert one.tally["gen_style_rate"] == (1, 1)


def test_a_broken_style_is_the_users_error() -> None:
    with pytest.raises(regex.error):
        judge("a", "b", "(")
