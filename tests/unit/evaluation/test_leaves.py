import json
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation.formats import Document
from lib.evaluation.leaves import comparable, key_paths, leaves, shown_path, shown_value

DOCUMENT: Document = {"a": {"b": [1, {"c": "x"}]}, "d.e": None, "f": [], "g": {}}


def test_paths_are_those_of_every_value_but_the_root() -> None:
    shown = [shown_path(path) for path in key_paths(DOCUMENT)]
    assert shown == ["a", "a.b", "a.b[0]", "a.b[1]", "a.b[1].c", "`d.e`", "f", "g"]
    assert key_paths("scalar") == key_paths({}) == key_paths([]) == []


def test_leaves_are_scalars_and_what_is_empty() -> None:
    assert {shown_path(path): value for path, value in leaves(DOCUMENT).items()} == {
        "a.b[0]": 1,
        "a.b[1].c": "x",
        "`d.e`": None,
        "f": [],
        "g": {},
    }
    assert leaves("scalar") == {(): "scalar"}
    assert leaves([[1]]) == {(0, 0): 1}
    assert shown_path((0, 0, "@a", "")) == "[0][0].@a.``"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", 1),
        (True, 1),
        (False, 0),
        (None, ""),
        (None, "null"),
        ([], {}),
        ("2024-01-31", date(2024, 1, 31)),
        (date(2024, 1, 31), datetime(2024, 1, 31)),
        ("a b", "a  b"),
        ("A", "a"),
        (1, 2),
        ("", " "),
    ],
)
def test_values_of_another_type_or_text_differ(one: Document, other: Document) -> None:
    assert comparable(one, "json") != comparable(other, "json")


@pytest.mark.parametrize(
    ("one", "other", "format_name"),
    [
        (1, 1.0, "json"),
        (86.0, 86, "toml"),
        (float("nan"), float("nan"), "toml"),
        (-0.0, 0, "yaml"),
        ("  two\n   lines ", "two lines", "xml"),
        ("two\nlines", "two lines", "csv"),
        (date(2024, 1, 31), date(2024, 1, 31), "yaml"),
    ],
)
def test_values_that_are_the_same(one: Document, other: Document, format_name: str) -> None:
    assert comparable(one, format_name) == comparable(other, format_name)


def test_text_formats_compare_text_and_no_numbers() -> None:
    assert comparable("1.0", "csv") != comparable("1", "csv")
    assert comparable("True", "xml") != comparable("true", "xml")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("花子", "花子"),
        ("x" * 300, "x" * 200 + "…"),
        (2.5, 2.5),
        (True, True),
        (None, None),
        (date(2024, 1, 31), "date: 2024-01-31"),
        (float("inf"), "float: inf"),
        (2**60, "int: 1152921504606846976"),
        ([], []),
        ([1, 2], "list: [1, 2]"),
    ],
)
def test_shown_values_fit_into_strict_json(value: Document, shown: Any) -> None:
    assert shown_value(value) == shown
    json.dumps(shown_value(value), allow_nan=False)


TREES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_every_leaf_is_found_by_following_its_path(tree: Any) -> None:
    found = leaves(tree)
    for path, value in found.items():
        node = tree
        for step in path:
            node = node[step]
        assert node == value
    inner = {path[:length] for path in found for length in range(1, len(path) + 1)}
    assert set(key_paths(tree)) == inner
