from pathlib import Path

import pytest

from lib.settings import readers
from lib.settings.readers import RefusedError


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("+8", 8), ("-1", -1), ("007", 7)])
def test_integer(text: str, value: int) -> None:
    assert readers.integer(minimum=1, off=-1).parse(text) == value


@pytest.mark.parametrize("text", ["1e3", "16.0", "1_000", "١٢", "0", "-2", "", "x", "9" * 5000, "16# note"])
def test_integer_refuses(text: str) -> None:
    with pytest.raises(RefusedError, match="-1 or a whole number, at least 1"):
        readers.integer(minimum=1, off=-1).parse(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("5e-5", 5e-5), (".5", 0.5), ("2.", 2.0), ("3", 3.0)]
)
def test_number(text: str, value: float) -> None:
    assert readers.number(above=0).parse(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1_0", "0", "-1", "0x10", "1,5", ""])
def test_number_refuses(text: str) -> None:
    with pytest.raises(RefusedError, match="a number, above 0"):
        readers.number(above=0).parse(text)


@pytest.mark.parametrize(("text", "inside"), [("0", True), ("0.99", True), ("1", False), ("-0.1", False)])
def test_number_bounds(text: str, inside: bool) -> None:
    reader = readers.number(minimum=0, below=1)
    if inside:
        assert reader.parse(text) == float(text)
    else:
        with pytest.raises(RefusedError, match="at least 0 and below 1"):
            reader.parse(text)


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_flag_on(text: str) -> None:
    assert readers.flag().parse(text) is True


@pytest.mark.parametrize("text", ["0", "false", "No", "OFF"])
def test_flag_off(text: str) -> None:
    assert readers.flag().parse(text) is False


@pytest.mark.parametrize("text", ["2", "ja", ""])
def test_flag_refuses(text: str) -> None:
    with pytest.raises(RefusedError, match="0 or 1"):
        readers.flag().parse(text)


def test_choice_takes_flag_words_for_0_and_1() -> None:
    reader = readers.choice("auto", "0", "1")
    assert [reader.parse(text) for text in ("auto", "true", "off")] == ["auto", "1", "0"]
    with pytest.raises(RefusedError, match="auto, 0 or 1"):
        reader.parse("maybe")


def test_words_keep_order_and_inner_blanks() -> None:
    assert readers.words("a list").parse(" Final answer: ,出力:") == ("Final answer:", "出力:")


@pytest.mark.parametrize("text", [",", "a,,b", "a,a", "a,"])
def test_words_refuse_empty_and_repeated_entries(text: str) -> None:
    with pytest.raises(RefusedError, match="no entry empty, none twice"):
        readers.words("a list").parse(text)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert readers.path("a folder").parse("~/out/x/") == Path("/home/me/out/x")
    assert readers.local_or_named("a model").parse("~/model") == "/home/me/model"
    assert readers.local_or_named("a model").parse("Qwen/~odd") == "Qwen/~odd"


@pytest.mark.parametrize("text", [".", "/", "a/..", "~no-such-user-here/x", "a\0b", "a\ud800"])
def test_path_refuses(text: str) -> None:
    with pytest.raises(RefusedError):
        readers.path("a folder").parse(text)


@pytest.mark.parametrize("given", ["x" * 300, "あ" * 100, "a/" * 1000 + "b"])
def test_names_that_no_file_system_takes_are_refused(given: str) -> None:
    for reader in (readers.path("a folder"), readers.local_or_named("a data set")):
        with pytest.raises(RefusedError) as caught:
            reader.parse(given)
        assert "Shorten it" in caught.value.faults[0].remedy


def test_a_number_of_steps_that_nobody_means_is_refused() -> None:
    assert readers.integer(minimum=1).parse("0" * 20 + "999999999999") == 999_999_999_999
    with pytest.raises(RefusedError, match="at most 12 digits"):
        readers.integer(minimum=1).parse("1000000000000")
