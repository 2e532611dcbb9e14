import csv
import io
import json
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation.bounds import LONGEST_DOCUMENT
from lib.evaluation.formats import READERS, Unparsable, read_document
from lib.evaluation.yaml_documents import YamlLoader, load_yaml

VALUES: dict[str, list[tuple[str, Any]]] = {
    "json": [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ('"text"', "text"),
        ("[]", []),
        (' {"名前": "花子"}\n', {"名前": "花子"}),
        ("3", 3),
        ("null", None),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('"\\ud83d\\ude00"', "😀"),
    ],
    "yaml": [
        ("a: 1\nb:\n  - x\n  - y", {"a": 1, "b": ["x", "y"]}),
        ("- 1\n- 2", [1, 2]),
        ("名前: 花子\n都市: 東京", {"名前": "花子", "都市": "東京"}),
        ("note: this is *very* good and 2 *x", {"note": "this is *very* good and 2 *x"}),
        ("anchor: &a 1", {"anchor": 1}),
        ("2: a\ntrue: b\nnull: c\n2024-01-31: d", {"2": "a", "true": "b", "null": "c", "2024-01-31": "d"}),
        ("d: 2024-01-31\nt: '2024-01-31'", {"d": date(2024, 1, 31), "t": "2024-01-31"}),
        ("base: {<<: {a: 1, b: 2}, b: 3}", {"base": {"a": 1, "b": 3}}),
        (
            '"Dear Ada, this key is quoted and may say what it likes": 1',
            {"Dear Ada, this key is quoted and may say what it likes": 1},
        ),
        ("number of items sold per region: 3", {"number of items sold per region": 3}),
    ],
    "toml": [
        ('a = 1\n[b]\nc = "x"', {"a": 1, "b": {"c": "x"}}),
        ("d = 2024-01-31T10:00:00\ne = 10:00:00", {"d": datetime(2024, 1, 31, 10), "e": time(10)}),
        ('"名前" = "花子"', {"名前": "花子"}),
        ("[[a]]\nb = 1\n[[a]]\nb = 2", {"a": [{"b": 1}, {"b": 2}]}),
    ],
    "xml": [
        ("<a><b c='d'>text</b></a>", {"a": {"b": {"@c": "d", "#text": "text"}}}),
        ("<?xml version='1.0'?><a/>", {"a": ""}),
        ("<人><名前>花子</名前></人>", {"人": {"名前": "花子"}}),
        ("<a>\n <b>1</b>\n <c/>\n <b>2</b>\n</a>", {"a": {"b": ["1", "2"], "c": ""}}),
        ("<p>one <b>two</b> three</p>", {"p": {"b": "two", "#text": "one three"}}),
        ("<a><!-- no --><![CDATA[<!DOCTYPE x> & <b>]]></a>", {"a": "<!DOCTYPE x> & <b>"}),
        ("<?xml version='1.0' encoding='shift_jis'?><a>花</a>", {"a": "花"}),
    ],
    "csv": [
        ("name,age\nAda,36", [{"name": "Ada", "age": "36"}]),
        ('a,b\n"x, y","z ""q"""\n1,2', [{"a": "x, y", "b": 'z "q"'}, {"a": "1", "b": "2"}]),
        ("名前,年齢\r\n花子,36\r\n", [{"名前": "花子", "年齢": "36"}]),
        ('a,b\n"two\nlines",', [{"a": "two\nlines", "b": ""}]),
    ],
}
PROSE = [
    "Here is the document that you asked for.",
    "Sure! Here it is, with every field:",
    "Here is the YAML document that you asked for: it has three fields.",
    "Approach:\n1. Task: Create a note\n2. Complexity: simple",
    "The answer has a name, an age and a city.\nIt also has a street, a number and a code.",
    "以下が結果です。",
    "ご依頼の件、以下の通りです: 完了",
    "just\nsome words",
]
INVALID = {
    "json": [
        "",
        "{",
        "{'a': 1}",
        '{"a": 1,}',
        "NaN",
        '{"a": Infinity}',
        "-Infinity",
        '{"a": 1} tail',
        '"\\ud800"',
    ],
    "yaml": [
        "a: [1, 2",
        "a: b: c",
        "42",
        "null",
        "a: &x [1]\nb: *x",
        "- &x [1]\n- [*x,*x]",
        "--- 1\n--- 2",
        "a: !!python/object:os.system x",
        "a: 1\nb: 2\na: 3",
        "a: 2024-13-45",
        'a: !!int ""',
        'a: !!float ""',
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!set {x, y}",
        "a: !!binary eA==",
        "[[a]: 1]",
        '"\\ud800": 1',
        "a: \x00",
    ],
    "toml": ["", "# only a comment", "a = ", "a: 1", "a = 1\na = 2"],
    "xml": [
        "<a><b></a>",
        "<a/><b/>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        "<a>&nbsp;</a>",
        "<x:a/>",
        "<a>\ud800</a>",
    ],
    "csv": ["name\nAda\nBob", "a,b", "a,b\n1,2,3", "a,b\n1", "a,\n1,2", 'a,b\n"1,2', "a,a\n1,2", "a, b\n1,2"],
}


@pytest.mark.parametrize(
    ("name", "text", "value"), [(n, t, v) for n, cases in VALUES.items() for t, v in cases]
)
def test_well_formed_documents_are_read(name: str, text: str, value: Any) -> None:
    found = read_document(text, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("name", "text"), [(n, text) for n, texts in INVALID.items() for text in texts])
def test_everything_else_is_refused_with_a_reason_in_one_line(name: str, text: str) -> None:
    with pytest.raises(Unparsable) as error:
        read_document(text, name)
    assert error.value.reason
    assert "\n" not in error.value.reason


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ["", " \n\t", *PROSE])
def test_prose_is_no_document_in_any_format(name: str, text: str) -> None:
    with pytest.raises(Unparsable):
        read_document(text, name)


def test_every_format_is_covered() -> None:
    assert set(VALUES) == set(INVALID) == set(READERS)


def test_another_format_is_the_programmers_error() -> None:
    with pytest.raises(KeyError):
        read_document("x", "docx")


@pytest.mark.parametrize("text", ["[" * 150 + "]" * 150, "- " * 150 + "x", "? " * 150])
def test_yaml_stops_at_the_depth_itself(text: str) -> None:
    """Not at Python's limit, which other libraries may raise until the stack overflows."""
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        load_yaml(text, YamlLoader)


@pytest.mark.parametrize("name", READERS)
def test_endless_answers_are_refused(name: str) -> None:
    with pytest.raises(Unparsable, match="longer than"):
        read_document(VALUES[name][0][0] + " " * LONGEST_DOCUMENT, name)


SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_what_json_writes_is_read_back(tree: Any) -> None:
    assert read_document(json.dumps(tree), "json") == tree
    assert read_document(json.dumps(tree, ensure_ascii=False), "json") == tree


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), TREES, min_size=1, max_size=3))
def test_what_yaml_writes_is_read_back(tree: Any) -> None:
    quoted = yaml.safe_dump(tree, allow_unicode=True, default_style='"')
    assert read_document(quoted, "yaml") == tree


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
HEADERS = st.lists(CELLS.map(str.strip).filter(bool), min_size=2, max_size=4, unique=True)


@settings(max_examples=100, deadline=None)
@given(HEADERS, st.data())
def test_what_csv_writes_is_read_back(header: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[CELLS.map(str.strip)] * len(header)), min_size=1, max_size=3))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    expected = [dict(zip(header, row, strict=True)) for row in rows]
    assert read_document(text.getvalue(), "csv") == expected


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(READERS)),
    st.text(max_size=40) | st.text("{}[]<>/&*!:-,\"' =\n#.a1?|%@`", max_size=40),
)
def test_whatever_comes_is_a_document_or_unparsable(name: str, text: str) -> None:
    with suppress(Unparsable):
        read_document(text, name)
