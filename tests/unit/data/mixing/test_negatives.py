import json
from collections.abc import Callable
from typing import Any

import pytest

from lib.data.mixing.mixture import plan_mixture
from lib.data.mixing.negatives import NegativeRule, scaled_parts
from lib.data.reading.extraction_record import answer_is_negative
from lib.data.reading.rows import to_example
from lib.data.reading.usable_rows import SourceRows
from lib.evaluation.extraction import judge
from lib.settings.errors import InputError
from lib.settings.json_values import WHOLE_MIX


def record(*persons: dict[str, Any]) -> str:
    return json.dumps({"persons": persons, "occured_locations": [], "police_departments": []})


OFFENDER = {"name": "山田", "is_offender": True, "act": "窃盗"}
ANSWERS = [
    record(),
    record(OFFENDER),
    record({**OFFENDER, "act": " "}),
    record({**OFFENDER, "act": None}),
    record({**OFFENDER, "is_offender": False}, OFFENDER),
    record({**OFFENDER, "is_offender": "true"}),
    f"<think>{{</think>\n{record(OFFENDER)}",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_negatives_of_the_mix_are_those_of_the_evaluation(answer: str) -> None:
    on_negatives = "gen_fp_rate_on_negative" in judge(answer, answer).tally
    assert answer_is_negative(answer) == on_negatives


@pytest.mark.parametrize("answer", ["", "nobody", '{"persons": [', '{"persons": 1}', '["persons"]'])
def test_other_answers_are_neither(answer: str) -> None:
    assert answer_is_negative(answer) is None


def test_labels_tell_where_answers_do_not() -> None:
    row = to_example({"prompt": "q", "completion": "none", "type": "empty"}, "s", 0)
    assert NegativeRule({}).is_negative(row) is None
    assert NegativeRule({}, frozenset({"empty"})).is_negative(row) is True
    assert NegativeRule({}, frozenset({"other"})).is_negative(row) is False


def test_parts_are_scaled_within_their_scope_only() -> None:
    kinds = [("*", True), ("*", False), ("*", False), None]
    assert scaled_parts([0.1, 0.3, 0.2, 0.4], kinds, {"*": 0.5}) == pytest.approx([0.3, 0.18, 0.12, 0.4])


def test_a_share_that_these_rows_cannot_have_is_refused(source_rows: Callable[..., SourceRows]) -> None:
    rows = source_rows("A", 1.0, 10, type="positive")
    rule = NegativeRule({WHOLE_MIX: 0.5}, frozenset({"negative"}))
    with pytest.raises(InputError, match="negatives among the mix; there are none"):
        plan_mixture([rows], val_ratio=0, seed=1, negatives=rule)
    with pytest.raises(InputError, match="negatives and positives among the rows of nowhere"):
        plan_mixture([rows], val_ratio=0, seed=1, negatives=NegativeRule({"nowhere": 0.5}))
