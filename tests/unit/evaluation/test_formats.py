import pytest

from lib.evaluation.structured import LONGEST_ANSWER, PARSERS, answer_part, parses

MARKERS = ("Output:", "Final:", "Answer:")
VALID = {
    "json": ['{"a": [1, 2.5, null, true]}', '"text"', "[]", '{"名前": "花子"}', "3"],
    "yaml": [
        "a: 1\nb:\n  - x\n  - y",
        "- 1\n- 2",
        "名前: 花子\n都市: 東京",
        "{a: 1}",
        "note: this is *very* good and 2 *x",
        "anchor: &a 1",
    ],
    "toml": ['a = 1\n[b]\nc = "x"', "d = 2024-01-31T10:00:00Z\ne = [1, 2]", '"名前" = "花子"'],
    "xml": ["<a><b c='d'>text</b></a>", "<?xml version='1.0'?><a/>", "<人><名前>花子</名前></人>"],
    "csv": ["name,age\nAda,36", 'a,b\n"x, y","z ""q"""\n1,2', "名前,年齢\n花子,36"],
}
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
        "prose",
    ],
    "yaml": [
        "Here is the document that you asked for.",
        "just\nsome words",
        "a: [1, 2",
        "a: b: c",
        "42",
        "a: &x [1]\nb: *x",
        "- &x [1]\n- [*x,*x]",
        "--- 1\n--- 2",
        "a: !!python/object:os.system x",
    ],
    "toml": ["", "# only a comment", "a = ", "a: 1", "a = 1\na = 2", "prose without an equals sign"],
    "xml": [
        "<a><b></a>",
        "text",
        "<a/><b/>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<!DOCTYPE a><a/>",
        "<a>&nbsp;</a>",
    ],
    "csv": [
        "name\nAda\nBob",
        "a,b",
        "a,b\n1,2,3",
        "a,b\n1",
        "a,\n1,2",
        'a,b\n"1,2',
        "Only prose, in one line.",
    ],
}


@pytest.mark.parametrize(("name", "document"), [(n, d) for n, documents in VALID.items() for d in documents])
def test_well_formed_documents_parse(name: str, document: str) -> None:
    assert parses(document, name)


@pytest.mark.parametrize(
    ("name", "document"), [(n, d) for n, documents in INVALID.items() for d in documents]
)
def test_everything_else_does_not(name: str, document: str) -> None:
    assert not parses(document, name)


def test_every_format_is_covered() -> None:
    assert set(VALID) == set(INVALID) == set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_empty_and_endless_answers_do_not_parse(name: str) -> None:
    assert not parses("", name)
    assert not parses(VALID[name][0] + " " * LONGEST_ANSWER, name)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("json", "[" * 10_000 + "]" * 10_000),
        ("json", '{"a":' * 10_000 + "1" + "}" * 10_000),
        ("yaml", "[" * 10_000 + "]" * 10_000),
        ("toml", "a = " + "[" * 10_000 + "]" * 10_000),
    ],
)
def test_nesting_without_end_is_no_crash(name: str, document: str) -> None:
    assert not parses(document, name)


def test_deep_xml_is_judged_without_a_crash() -> None:
    assert not parses("<a>" * 10_000, "xml")


def test_an_entity_bomb_is_not_expanded() -> None:
    lines = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 30))
    assert not parses(f'<!DOCTYPE x [<!ENTITY e0 "ha">{lines}]><x>&e29;</x>', "xml")


def test_another_format_is_the_programmers_error() -> None:
    with pytest.raises(KeyError):
        parses("x", "docx")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('Approach: count.\n\nOutput:\n{"a": 1}\n', '{"a": 1}'),
        ("Output: first\nFinal: second", "second"),
        ("Answer: a\nOutput: b", "b"),
        ("no marker at all\n", "no marker at all"),
        ("Output:\n```json\n{}\n```\nThat is it.", "{}"),
        ("```yaml\na: 1\nb: 2\n```", "a: 1\nb: 2"),
        ("Output:\n```\nx\n```\n```\ny\n```", "x"),
        ("```json\n{}\n```\nOutput: {1}", "{1}"),
        ("Output: an open ``` fence", "an open ``` fence"),
        ("Output:", ""),
        ("", ""),
    ],
)
def test_the_document_follows_the_last_marker_inside_the_first_fence(text: str, part: str) -> None:
    assert answer_part(text, MARKERS) == part


def test_without_markers_the_answer_is_the_document() -> None:
    assert answer_part("Output: x", ()) == "Output: x"
