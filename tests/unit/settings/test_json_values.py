from pathlib import Path

import pytest

from lib.settings.json_values import BrokenJsonError, MixEntry, mix, object_file, rules, whole_sets
from lib.settings.readers import RefusedError


def expected_of(text: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        mix().parse(text)
    return [fault.expected for fault in caught.value.faults]


def test_mix_with_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert mix().parse('[{"id": "a"}, {"id": "~/b.jsonl", "weight": 2, "split": "test"}]') == (
        MixEntry("a", 1.0, "train"),
        MixEntry("/home/me/b.jsonl", 2.0, "test"),
    )


@pytest.mark.parametrize("weight", ["0", "-1", '"2"', "true", "null", "1e999", "[1]", "9" * 400])
def test_mix_weight_must_be_positive_and_finite(weight: str) -> None:
    (expected,) = expected_of(f'[{{"id": "a", "weight": {weight}}}]')
    assert "finite number above 0 in entry 1" in expected


def test_mix_reports_every_entry() -> None:
    expected = expected_of('[{"weight": 1}, "a", {"id": "b", "weigth": 2}, {"id": "c", "split": ""}]')
    assert [
        '"id"' in expected[0],
        "entry 2" in expected[1],
        "'weigth'" in expected[2],
        "split" in expected[3],
    ] == [True] * 4


def test_mix_unknown_key_gets_a_suggestion() -> None:
    with pytest.raises(RefusedError) as caught:
        mix().parse('[{"id": "a", "weigth": 2}]')
    assert caught.value.faults[0].remedy == "Did you mean weight?"


@pytest.mark.parametrize("text", ["[]", "{}", '"a"', "3"])
def test_mix_must_be_a_list_with_entries(text: str) -> None:
    assert "a JSON list with at least one entry" in expected_of(text)[0]


@pytest.mark.parametrize(
    "text", ["[", "[{'id': 'a'}]", '[{"id": "a"},]', '[{"id": "a", "weight": NaN}]', "[" * 9999]
)
def test_mix_that_is_not_json(text: str) -> None:
    with pytest.raises(BrokenJsonError) as caught:
        mix().parse(text)
    assert caught.value.reason


def test_json_keys_given_twice_are_refused() -> None:
    with pytest.raises(RefusedError, match="'toml'") as caught:
        rules().parse('{"toml": 2, "csv": 1, "toml": 3}')
    assert not isinstance(caught.value, BrokenJsonError)


def test_rules() -> None:
    assert rules().parse('{"toml": 3, "csv": 1.5}') == {"toml": 3.0, "csv": 1.5}
    assert rules().parse("") == {}


@pytest.mark.parametrize("text", ['{"a": 0}', '{"a": -1}', '{"a": "2"}', '{"": 2}', "[1]", '{"a": true}'])
def test_rules_refuse(text: str) -> None:
    with pytest.raises(RefusedError, match="multiplier"):
        rules().parse(text)


def test_whole_sets_have_no_weight() -> None:
    assert whole_sets().parse("a, b/c") == (MixEntry("a", None), MixEntry("b/c", None))


def test_object_file(tmp_path: Path) -> None:
    config = tmp_path / "zero.json"
    config.write_text('{"zero_optimization": {"stage": 2}}')
    assert object_file("a JSON file").parse(str(config)) == config


@pytest.mark.parametrize("content", [None, "[1]", "{", b"\xff\xfe"])
def test_object_file_refuses(tmp_path: Path, content: str | bytes | None) -> None:
    config = tmp_path / "zero.json"
    if content is not None:
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RefusedError, match="a JSON file"):
        object_file("a JSON file").parse(str(config))
