import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation.extraction import FIELDS, judge, record_part
from lib.evaluation.tally import ratios


def person(
    name: Any = "山田太郎", *, act: Any = "窃盗", is_offender: Any = True, **more: Any
) -> dict[str, Any]:
    base = {"age": "35", "position": "会社員", "affiliation": "", "address": "東京都"}
    return {"name": name, **base, "act": act, "is_offender": is_offender, **more}


def record(*persons: Any, places: Any = ("大阪市",), police: Any = ("大阪府警",)) -> str:
    lists = {"occured_locations": list(places), "police_departments": list(police)}
    return json.dumps({"persons": list(persons), **lists}, ensure_ascii=False)


POSITIVE = record(person())
NEGATIVE = record(person(is_offender=False))
BROKEN = '{"persons": ['
REFERENCES = [POSITIVE, NEGATIVE, record(person("鈴木"), person("佐藤")), NEGATIVE, record()]
POSITIVES = 2


def scores(*pairs: tuple[str, str]) -> dict[str, float]:
    """From (answer, reference) pairs."""
    return ratios([judge(answer, reference).tally for answer, reference in pairs])


def said_always(answer: str) -> dict[str, float]:
    return scores(*((answer, reference) for reference in REFERENCES))


def test_the_perfect_model_is_right_everywhere() -> None:
    found = scores(*((reference, reference) for reference in REFERENCES))
    worst = {
        "gen_fp_rate_on_negative": 0.0,
        "gen_unparsed_rate_on_negative": 0.0,
        "gen_unusable_reference_rate": 0.0,
        "gen_avg_pred_offender_count": 3 / 5,
        "gen_avg_gold_offender_count": 3 / 5,
    }
    assert found == pytest.approx({**dict.fromkeys(found, 1.0), **worst})
    fields = {name.split("/")[1] for name in found if name.startswith("gen_field_exact_match_rate/")}
    assert fields == set(FIELDS)
    assert set(FIELDS) == {
        *("name", "age", "position", "affiliation", "address", "act"),
        *("occured_locations", "police_departments"),
    }


def test_the_names_are_those_of_the_users_system() -> None:
    names = {name.split("/")[0] for name in scores((POSITIVE, POSITIVE), (NEGATIVE, NEGATIVE))}
    assert names == {
        "gen_json_parse_rate",
        "gen_schema_ok_rate",
        "gen_offender_presence_precision",
        "gen_offender_presence_recall",
        "gen_offender_presence_f1",
        "gen_offender_name_set_f1",
        "gen_field_exact_match_rate",
        "gen_all_fields_exact_match_rate",
        "gen_fp_rate_on_negative",
        "gen_avg_pred_offender_count",
        "gen_avg_gold_offender_count",
        "gen_unparsed_rate_on_negative",
        "gen_field_exact_match_rate_positive",
        "gen_all_fields_exact_match_rate_positive",
        "gen_unusable_reference_rate",
    }


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "",
            "申し訳ありませんが、お答えできません。",
            "{}",
            "[]",
            "null",
            BROKEN,
            '{"persons": []}',
            '{"a": 1}',
        ),
        '{"persons": {}, "occured_locations": [], "police_departments": []}',
        "次の記事から人物を抽出し、JSONで答えてください。記事: 山田太郎容疑者が逮捕された。",
    ],
)
def test_a_model_without_a_record_looks_bad_on_every_metric(answer: str) -> None:
    found = said_always(answer)
    parses = answer in ("{}", "[]", "null") or answer.endswith("}")
    worst = {
        "gen_json_parse_rate": float(parses),
        "gen_unparsed_rate_on_negative": 1.0,
        "gen_avg_gold_offender_count": 3 / 5,
    }
    assert found == pytest.approx({**dict.fromkeys(found, 0.0), **worst})
    # Neither of them can be had: nothing was claimed, and no negative was read.
    assert "gen_fp_rate_on_negative" not in found
    assert "gen_offender_presence_precision" not in found


def test_a_model_that_always_says_nobody_is_found_out_on_positives() -> None:
    found = said_always(record())
    assert found["gen_fp_rate_on_negative"] == 0.0
    assert found["gen_all_fields_exact_match_rate"] == pytest.approx(3 / 5)
    zero = ["gen_offender_presence_recall", "gen_offender_presence_f1", "gen_offender_name_set_f1"]
    zero += [name for name in found if name.startswith("gen_") and "_positive" in name]
    empty_in_the_references = "gen_field_exact_match_rate_positive/affiliation"
    assert {name for name in zero if found[name]} <= {empty_in_the_references}


def test_a_model_that_always_accuses_the_same_man_is_found_out_on_negatives() -> None:
    found = said_always(record(person("誰か", act="殺人", age="1", position="x", address="y")))
    assert found["gen_fp_rate_on_negative"] == 1.0
    assert found["gen_offender_presence_precision"] == pytest.approx(POSITIVES / len(REFERENCES))
    assert found["gen_offender_name_set_f1"] == 0.0
    assert found["gen_all_fields_exact_match_rate"] == 0.0


def test_unread_negatives_are_neither_false_positives_nor_true_negatives() -> None:
    found = scores((BROKEN, NEGATIVE), (NEGATIVE, NEGATIVE), (POSITIVE, NEGATIVE), (NEGATIVE, NEGATIVE))
    assert found["gen_fp_rate_on_negative"] == pytest.approx(1 / 3)
    assert found["gen_unparsed_rate_on_negative"] == pytest.approx(1 / 4)
    assert found["gen_all_fields_exact_match_rate"] == pytest.approx(2 / 4)
    assert found["gen_avg_pred_offender_count"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("reference", ["", "{", "{}", '{"persons": []}', "prose"])
def test_an_unusable_reference_is_counted_and_judges_nothing(reference: str) -> None:
    one = judge(POSITIVE, reference)
    assert one.tally == {"gen_unusable_reference_rate": (1, 1)}
    assert one.verdict["unusable_reference"]


@pytest.mark.parametrize(
    "persons",
    [
        [person(act="")],
        [person(act=None)],
        [person(act="  ")],
        [person(is_offender=False)],
        [person(is_offender="true")],
        [{"name": "x"}],
        ["山田太郎", None, 3],
    ],
)
def test_an_offender_is_marked_so_and_has_an_act(persons: list[Any]) -> None:
    assert judge(record(*persons), record()).verdict["exact"]
    assert judge(record(*persons), record()).tally["gen_fp_rate_on_negative"] == (0, 1)


def test_fields_are_texts_joined_over_offenders() -> None:
    gold = record(person("A", age=35), person("B", age=None), person("C", is_offender=False))
    same = record(person(" A ", age="35"), person("B", age=""))
    assert judge(same, gold).verdict["exact"]
    swapped = judge(record(person("B", age=None), person("A", age=35)), gold)
    assert swapped.verdict["wrong_values"] == [["name", "A/B", "B/A"], ["age", "35/", "/35"]]
    assert swapped.tally["gen_offender_name_set_f1"] == (4, 4)


def test_the_lists_are_texts_joined_and_empty_without_an_offender() -> None:
    gold = record(person(), places=("大阪市", "堺市"))
    assert judge(record(person(), places=("大阪市",)), gold).verdict["wrong_values"] == [
        ["occured_locations", "大阪市,堺市", "大阪市"]
    ]
    assert judge(record(places=("x",), police=("y",)), record()).verdict["exact"]
    one = judge(BROKEN, gold)
    assert ["act", "窃盗", None] in one.verdict["wrong_values"]
    assert one.verdict["parses"] is False


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('次の通りです。\n```json\n{"a": {}}\n```\n以上', '{"a": {}}'),
        ('<think>{"draft": 1}</think>{"a": 1}', '{"a": 1}'),
        ('<think>{"draft": 1}', ""),
        ("} {", "} {"),
        (" prose ", "prose"),
    ],
)
def test_the_record_reaches_from_the_first_brace_to_the_last(text: str, part: str) -> None:
    assert record_part(text) == part


PERSONS = st.lists(
    st.builds(
        lambda name, act, flag: person(name, act=act, is_offender=flag),
        st.sampled_from(["A", "B", "C"]),
        st.sampled_from(["", "窃盗"]),
        st.booleans(),
    ),
    max_size=3,
)
ANSWERS = PERSONS | st.sampled_from([BROKEN, "{}"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANSWERS, PERSONS), min_size=1, max_size=8))
def test_metrics_agree_with_a_confusion_table(rows: list[tuple[Any, list[Any]]]) -> None:
    def named(persons: list[Any]) -> list[str]:
        return [p["name"] for p in persons if p["is_offender"] and p["act"]]

    table = {"tp": 0, "fp": 0, "fn": 0, "tn": 0, "unread": 0}
    names = {"tp": 0, "fp": 0, "fn": 0}
    exact = 0
    for answer, gold in rows:
        unread = isinstance(answer, str)
        said = [] if unread else named(answer)
        if named(gold):
            table["tp" if said else "fn"] += 1
        elif unread:
            table["unread"] += 1
        else:
            table["fp" if said else "tn"] += 1
        for name in {*said, *named(gold)}:
            names["tp" if name in said and name in named(gold) else "fp" if name in said else "fn"] += 1
        # All other fields are equal from person to person, so their number and names decide.
        exact += not unread and said == named(gold)
    found = scores(*((a if isinstance(a, str) else record(*a), record(*gold)) for a, gold in rows))

    def ratio(top: int, bottom: int) -> float | None:
        return pytest.approx(top / bottom) if bottom else None

    tp, fp, fn = table["tp"], table["fp"], table["fn"]
    assert found.get("gen_offender_presence_precision") == ratio(tp, tp + fp)
    assert found.get("gen_offender_presence_recall") == ratio(tp, tp + fn)
    assert found.get("gen_offender_presence_f1") == ratio(2 * tp, 2 * tp + fp + fn)
    assert found.get("gen_fp_rate_on_negative") == ratio(fp, fp + table["tn"])
    negatives = fp + table["tn"] + table["unread"]
    assert found.get("gen_unparsed_rate_on_negative") == ratio(table["unread"], negatives)
    assert found.get("gen_offender_name_set_f1") == ratio(
        2 * names["tp"], 2 * names["tp"] + names["fp"] + names["fn"]
    )
    assert found.get("gen_all_fields_exact_match_rate") == ratio(exact, len(rows))
    gold_count = sum(len(named(gold)) for _, gold in rows)
    assert found["gen_avg_gold_offender_count"] == pytest.approx(gold_count / len(rows))
