import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation.answers import Judgement
from lib.evaluation.structured import format_of, judge
from lib.evaluation.tally import ratios

MARKERS = ("Output:",)
METRICS = ("gen_parse_rate", "gen_key_path_score", "gen_leaf_f1", "gen_exact_match_rate")


def judged(answer: str, reference: str, name: str = "json") -> Judgement:
    return judge(answer, reference, {"format": name}, MARKERS)


def scores(answer: str, reference: str, name: str = "json") -> dict[str, float]:
    found = ratios([judged(answer, reference, name).tally])
    return {metric: found[metric] for metric in (*METRICS, "gen_structeval_score") if metric in found}


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"format": "toml"}, "toml"),
        ({"format": " YAML "}, "yaml"),
        ({"format": "yml"}, "yaml"),
        ({"format": "docx"}, None),
        ({"output_type": "XML"}, "xml"),
        ({"type": "json_to_toml"}, "toml"),
        ({"type": "Text to CSV"}, "csv"),
        ({"type": "csv2yaml"}, "yaml"),
        ({"type": "toml"}, "toml"),
        ({"type": "conversion"}, None),
        ({"type": "toml_to_prose"}, None),
        ({"format": "json", "type": "csv_to_xml"}, "json"),
        ({"format": "structured", "type": "csv_to_xml"}, "xml"),
        ({}, None),
    ],
)
def test_the_format_is_what_a_label_names(labels: dict[str, str], name: str | None) -> None:
    assert format_of(labels) == name


def test_one_wrong_value_one_missing_and_one_extra_key() -> None:
    one = judged(
        'Output: {"a": 1, "b": {"c": "x"}, "z": 0}', 'Why.\nOutput: {"a": 2, "b": {"c": "x", "d": []}}'
    )
    # The reference has the leaves a, b.c and b.d, the answer a, b.c and z; they share the value of b.c only.
    assert ratios([one.tally]) == pytest.approx(
        {
            "gen_unusable_reference_rate": 0.0,
            "gen_parse_rate": 1.0,
            "gen_key_path_score": 3 / 4,
            "gen_leaf_f1": 2 / 6,
            "gen_exact_match_rate": 0.0,
            "gen_structeval_score": 0.2 + 0.8 * 3 / 4,
            **{f"{m}/json": v for m, v in zip(METRICS, (1.0, 3 / 4, 2 / 6, 0.0), strict=True)},
        }
    )
    assert one.document == '{"a": 1, "b": {"c": "x"}, "z": 0}'
    assert one.verdict == {
        "format": "json",
        "parses": True,
        "error": "",
        "exact": False,
        "missing_paths": ["b.d"],
        "extra_paths": ["z"],
        "wrong_values": [["a", 2, 1]],
    }


def test_an_answer_that_does_not_parse_misses_every_leaf() -> None:
    one = judged('{"a": 1, "b": [1, 2', '{"a": 1, "b": [1, 2]}')
    assert one.tally["gen_leaf_f1"] == (0, 3)
    assert one.tally["gen_key_path_score"] == (0, 4)
    assert one.tally["gen_structeval_score"] == (0, 1)
    assert (one.verdict["parses"], one.verdict["exact"]) == (False, False)
    assert "delimiter" in one.verdict["error"]
    assert len(one.verdict["missing_paths"]) == 4


def test_null_is_a_document_and_no_answer_is_none() -> None:
    assert scores("null", "null")["gen_exact_match_rate"] == 1.0
    assert scores("", "null") == {"gen_parse_rate": 0.0, "gen_leaf_f1": 0.0, "gen_exact_match_rate": 0.0}


def test_an_unusable_reference_is_counted_and_judges_nothing() -> None:
    one = judged("{}", "Output: {")
    assert one.tally == {"gen_unusable_reference_rate": (1, 1)}
    assert one.verdict["unusable_reference"]


def test_without_a_known_format_there_is_no_tally_but_a_word_about_it() -> None:
    one = judge("{}", "{}", {"format": "docx"}, MARKERS)
    assert one.tally == {}
    assert "format" in one.verdict["error"]


@pytest.mark.parametrize(
    ("name", "reference", "answer"),
    [
        ("json", '{"a": 1, "b": 2}', '{"b": 2.0, "a": 1}'),
        ("yaml", "a: [1, 2]\nb: x", "b: 'x'\na:\n- 1\n- 2"),
        ("toml", "a.b = 1\n", "[a]\nb = 0x1"),
        ("xml", "<a><b>1</b><c>2</c></a>", "<?xml version='1.0'?>\n<a>\n  <c>2</c>\n  <b>\n1\n</b>\n</a>"),
        ("csv", "a,b\n1,2", '"a","b"\n"1","2"\n'),
        ("yaml", "名前: 花子\n住所: 東京都", '{"名前": "花子", "住所": "東京都"}'),
    ],
)
def test_the_same_data_in_other_words_is_exact(name: str, reference: str, answer: str) -> None:
    found = scores(answer, reference, name)
    assert found == dict.fromkeys(found, 1.0)
    assert "gen_structeval_score" in found


@pytest.mark.parametrize(
    ("name", "reference", "answer", "wrong"),
    [
        ("json", '{"a": "1"}', '{"a": 1}', ["a", "1", 1]),
        ("yaml", "d: '2024-01-31'", "d: 2024-01-31", ["d", "2024-01-31", "date: 2024-01-31"]),
        ("xml", "<a x='1'/>", "<a x='2'/>", ["a.@x", "1", "2"]),
        ("csv", "名前,b\n花子,2", "名前,b\n太郎,2", ["[0].名前", "花子", "太郎"]),
        ("json", "[1, 2]", "[2, 2]", ["[0]", 1, 2]),
    ],
)
def test_wrong_values_are_shown_with_their_path(
    name: str, reference: str, answer: str, wrong: list[Any]
) -> None:
    one = judged(answer, reference, name)
    assert one.verdict["wrong_values"] == [wrong]
    assert not one.verdict["exact"]


@pytest.mark.parametrize("answer", ['{"a": 1}', '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": {}}'])
def test_too_little_and_too_much_are_not_exact(answer: str) -> None:
    one = judged(answer, '{"a": 1, "b": 2}')
    assert one.tally["gen_exact_match_rate"] == (0, 1)
    assert one.verdict["exact"] is False


def test_a_verdict_stays_short() -> None:
    long = json.dumps({f"k{i}": i for i in range(50)})
    other = json.dumps({f"k{i}": -1 - i for i in range(25)} | {f"z{i}": i for i in range(50)})
    verdict = judged(other, long).verdict
    assert [len(verdict[key]) for key in ("missing_paths", "extra_paths", "wrong_values")] == [20, 20, 20]


SCALARS = st.integers(0, 2) | st.sampled_from(["", "x", "花子"]) | st.booleans() | st.none()
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
PAIRS = st.tuples(TREES, TREES | st.none()).map(lambda pair: (pair[0], pair[1]))


def brute_leaves(tree: Any, path: str = "$") -> list[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key in tree for leaf in brute_leaves(tree[key], f"{path}/k:{key}")]
    if isinstance(tree, list) and tree:
        return [leaf for i in range(len(tree)) for leaf in brute_leaves(tree[i], f"{path}/i:{i}")]
    return [(path, json.dumps(tree))]


def brute_paths(tree: Any, path: str = "$") -> list[str]:
    found = []
    if isinstance(tree, dict):
        for key in tree:
            found += [f"{path}/k:{key}", *brute_paths(tree[key], f"{path}/k:{key}")]
    if isinstance(tree, list):
        for i in range(len(tree)):
            found += [f"{path}/i:{i}", *brute_paths(tree[i], f"{path}/i:{i}")]
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=6))
def test_metrics_agree_with_counting_by_hand(pairs: list[tuple[Any, Any]]) -> None:
    """`None` as an answer stands for one that does not parse."""
    hits = false_alarms = misses = paths_found = paths_wanted = exact = parsed = 0
    for reference, answer in pairs:
        expected = brute_leaves(reference)
        given_leaves = [] if answer is None else brute_leaves(answer)
        hits += len([leaf for leaf in expected if leaf in given_leaves])
        misses += len([leaf for leaf in expected if leaf not in given_leaves])
        false_alarms += len([leaf for leaf in given_leaves if leaf not in expected])
        paths_wanted += len(brute_paths(reference))
        has = [] if answer is None else brute_paths(answer)
        paths_found += len([path for path in brute_paths(reference) if path in has])
        exact += answer is not None and json.dumps(answer, sort_keys=True) == json.dumps(
            reference, sort_keys=True
        )
        parsed += answer is not None
    found = ratios(
        [
            judged("{" if a is None else json.dumps(a), json.dumps(r, ensure_ascii=False)).tally
            for r, a in pairs
        ]
    )
    precision = hits / (hits + false_alarms) if hits else 0.0
    recall = hits / (hits + misses) if hits else 0.0
    assert found["gen_leaf_f1"] == pytest.approx(
        2 * precision * recall / (precision + recall) if hits else 0.0
    )
    assert found["gen_exact_match_rate"] == pytest.approx(exact / len(pairs))
    assert found["gen_parse_rate"] == pytest.approx(parsed / len(pairs))
    assert found.get("gen_key_path_score", 0.0) == pytest.approx(
        paths_found / paths_wanted if paths_wanted else 0.0
    )


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_the_reference_itself_scores_one_everywhere(tree: Any) -> None:
    text = f"Thought.\nOutput:\n```json\n{json.dumps(tree, indent=1)}\n```"
    assert set(scores(text, text).values()) == {1.0}
