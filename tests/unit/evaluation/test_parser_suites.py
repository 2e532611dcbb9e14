"""The readers against the public suites JSONTestSuite and toml-test: every exception has its reason here."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.evaluation.formats import Unparsable, read_document

TOML_1_1 = "TOML 1.1; tomllib reads 1.0"
MARK = "a byte order mark: it belongs to a file, and answers are text"
EMPTY = "an empty document is no answer"
HALF = "half of a surrogate pair: no file in UTF-8 can hold it"
DEEP = "deeper than 100 levels"
VALID_BUT_REFUSED = {
    "datetime/no-seconds.toml": TOML_1_1,
    "inline-table/newline-comment.toml": TOML_1_1,
    "inline-table/newline.toml": TOML_1_1,
    "key/empty-05.toml": TOML_1_1,
    "spec-1.1.0/common-12.toml": TOML_1_1,
    "spec-1.1.0/common-29.toml": TOML_1_1,
    "spec-1.1.0/common-31.toml": TOML_1_1,
    "spec-1.1.0/common-34.toml": TOML_1_1,
    "spec-1.1.0/common-47.toml": TOML_1_1,
    "string/escape-esc.toml": TOML_1_1,
    "string/hex-escape.toml": TOML_1_1,
    "utf8-bom-01.toml": MARK,
    "utf8-bom-02.toml": MARK,
}
# JSONTestSuite leaves these to the parser; all others of the kind that are UTF-8 at all are read.
IMPLEMENTATION_DEFINED_AND_REFUSED = {
    "i_object_key_lone_2nd_surrogate.json": HALF,
    "i_string_1st_surrogate_but_2nd_missing.json": HALF,
    "i_string_1st_valid_surrogate_2nd_invalid.json": HALF,
    "i_string_incomplete_surrogate_and_escape_valid.json": HALF,
    "i_string_incomplete_surrogate_pair.json": HALF,
    "i_string_incomplete_surrogates_escape_valid.json": HALF,
    "i_string_invalid_lonely_surrogate.json": HALF,
    "i_string_invalid_surrogate.json": HALF,
    "i_string_inverted_surrogates_U+1D11E.json": HALF,
    "i_string_lone_second_surrogate.json": HALF,
    "i_structure_500_nested_arrays.json": DEEP,
    "i_structure_UTF-8_BOM_empty_object.json": MARK,
}


def is_read(path: Path, format_name: str) -> bool:
    try:
        read_document(path.read_bytes().decode(), format_name)
    except (UnicodeDecodeError, Unparsable):
        return False
    return True


def test_json_agrees_with_its_suite(shared_data: Path) -> None:
    files = sorted((shared_data / "parsers/json/test_parsing").glob("*.json"))
    assert len(files) > 300
    for path in files:
        kind = path.name[0]
        if kind != "i":
            assert is_read(path, "json") is (kind == "y"), path.name


def test_what_json_leaves_open_is_settled_here(shared_data: Path) -> None:
    refused = set()
    for path in (shared_data / "parsers/json/test_parsing").glob("i_*.json"):
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if not is_read(path, "json"):
            refused.add(path.name)
    assert refused == set(IMPLEMENTATION_DEFINED_AND_REFUSED)


def toml_files(shared_data: Path, kind: str) -> Iterator[tuple[str, Path]]:
    folder = shared_data / "parsers/toml" / kind
    found = sorted(folder.rglob("*.toml"))
    assert len(found) > 200
    return ((path.relative_to(folder).as_posix(), path) for path in found)


def test_toml_agrees_with_its_suite(shared_data: Path) -> None:
    refused = {name: path for name, path in toml_files(shared_data, "valid") if not is_read(path, "toml")}
    for name in refused.keys() - VALID_BUT_REFUSED.keys():
        lines = refused[name].read_text(encoding="utf-8").splitlines()
        assert all(line.startswith("#") or not line.strip() for line in lines), (name, EMPTY)
    assert refused.keys() >= VALID_BUT_REFUSED.keys()
    assert not [name for name, path in toml_files(shared_data, "invalid") if is_read(path, "toml")]


def untagged(value: Any) -> Any:
    """The suite's expected values: scalars are {"type": …, "value": text}."""
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if set(value) != {"type", "value"} or not isinstance(value["value"], str):
        return {key: untagged(item) for key, item in value.items()}
    kind, text = value["type"], value["value"]
    if kind in ("integer", "float"):
        return ("number", text if text.endswith("nan") else float(text))
    if kind == "bool":
        return ("bool", text)
    if kind == "datetime":
        return ("time", datetime.fromisoformat(text).isoformat())
    return ("text" if kind == "string" else "time", text if kind == "string" else text.replace(" ", "T"))


def tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: tagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, bool):
        return ("bool", str(value).lower())
    if isinstance(value, int | float):
        return ("number", float(value) if value == value else "nan")
    return ("text", value) if isinstance(value, str) else ("time", value.isoformat())


def test_toml_values_agree_with_its_suite(shared_data: Path) -> None:
    compared = 0
    for name, path in toml_files(shared_data, "valid"):
        if is_read(path, "toml"):
            expected = untagged(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
            found = tagged(read_document(path.read_bytes().decode(), "toml"))
            assert same(found, expected), name
            compared += 1
    assert compared > 150


def same(found: Any, expected: Any) -> bool:
    """Times are compared up to the digits of their fractions of a second."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if expected[0] == "time":
        return found[0] == "time" and found[1].rstrip("0") == expected[1].rstrip("0")
    return bool(found == expected)
