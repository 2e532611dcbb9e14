import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.settings.env_file import read_env_file
from lib.settings.errors import InputError, Problem


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / "stage1.env"


def problems_of(env_file: Path) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        read_env_file(env_file)
    return caught.value.problems


def lines_of(env_file: Path) -> list[int]:
    return [int(problem.where.rpartition(":")[2]) for problem in problems_of(env_file)]


def test_reads_values_with_their_lines(env_file: Path) -> None:
    env_file.write_text(
        "# comment\n\nA=1\nexport B = two words  # trailing\n\n\nC='x # y'\nD=\nE= # nothing\n"
    )
    assert read_env_file(env_file) == {
        "A": ("1", 3),
        "B": ("two words", 4),
        "C": ("x # y", 7),
        "D": ("", 8),
        "E": ("", 9),
    }


def test_multi_line_json_counts_from_its_first_line(env_file: Path) -> None:
    env_file.write_text('A=1\nMIX=\'[\n  {"id": "a#b"}\n]\'  # two\nB=2\n')
    assert read_env_file(env_file) == {"A": ("1", 1), "MIX": ('[\n  {"id": "a#b"}\n]', 2), "B": ("2", 5)}


def test_windows_and_japanese_text(env_file: Path) -> None:
    env_file.write_bytes(b"\xef\xbb\xbf" + "A=出力:\r\nM='[\r\n1]'\r\nB=次\r\n".encode())
    assert read_env_file(env_file) == {"A": ("出力:", 1), "M": ("[\n1]", 2), "B": ("次", 4)}


def test_nothing_is_interpolated(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    env_file.write_text("A=${HF_TOKEN}\nB='${HF_TOKEN}'\nC=\"$HF_TOKEN\"\n")
    assert {value for value, _ in read_env_file(env_file).values()} == {"${HF_TOKEN}", "$HF_TOKEN"}


def test_missing_file(env_file: Path) -> None:
    (problem,) = problems_of(env_file)
    assert problem.where == str(env_file)
    assert "Create it" in problem.remedy


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path)
    assert problem.expected == "a readable file"


def test_not_utf8_names_the_line(env_file: Path) -> None:
    env_file.write_bytes(b"A=1\nB=\x93\xfa\x96{\n")
    (problem,) = problems_of(env_file)
    assert problem.where.endswith("stage1.env:2")
    assert "UTF-8" in problem.expected


def test_every_broken_line_is_reported_at_once(env_file: Path) -> None:
    env_file.write_text("A=1\n\nBARE\nA=2\n=3\nB='x' y\nC=4\n")
    assert lines_of(env_file) == [3, 4, 5, 6]
    bare, duplicate, nameless, trailing = problems_of(env_file)
    assert (bare.key, bare.remedy[:14]) == ("BARE", "Write BARE=VAL")
    assert (duplicate.key, duplicate.expected) == ("A", "every key once (first given on line 1)")
    assert nameless.key == ""
    assert "after a closed quote" in trailing.expected


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_numbers_after_a_broken_line(env_file: Path, newline: str) -> None:
    env_file.write_bytes(newline.join(["B='x' y", "A=1", "BARE", "A=2", ""]).encode())
    assert lines_of(env_file) == [1, 3, 4]


def test_unclosed_quote_is_one_problem(env_file: Path) -> None:
    env_file.write_text('A=1\nMIX=\'[\n  {"id": "a"},\n  {"id": "b"}\n]\nB=2\nBARE\n')
    quote, bare = problems_of(env_file)
    assert (quote.key, quote.where[-2:], quote.expected) == ("MIX", ":2", "a value whose quote is closed")
    assert bare.where.endswith(":7")


def test_unclosed_quote_that_a_later_quote_closes(env_file: Path) -> None:
    env_file.write_text("MIX='[1,\n2]\nB='b'\nC=3\n")
    (problem,) = problems_of(env_file)
    assert (problem.key, problem.expected) == ("MIX", "a value whose quote is closed")


def test_broken_lines_of_our_keys_are_shown(env_file: Path) -> None:
    env_file.write_text("SFT_MAX_STEPS 100\n")
    (problem,) = problems_of(env_file)
    assert (problem.key, problem.value) == ("SFT_MAX_STEPS", "SFT_MAX_STEPS 100")
    assert problem.expected == "KEY=VALUE (this line has no =)"


def test_broken_lines_never_show_what_may_be_a_secret(env_file: Path) -> None:
    env_file.write_text("HF_TOKEN 'hf_secret'\nhf_secret\nHF_TOKEN=hf_secret\nHF_TOKEN=hf_secret\n")
    assert len(problems_of(env_file)) == 3
    assert "hf_secret" not in "\n".join(problem.render() for problem in problems_of(env_file))


FRAGMENTS = st.sampled_from(
    ["SFT_LR", "=", "'", '"', "\\", "\n", "\r\n", "#", " ", "export ", "{", "\0", "日"]
)


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(st.binary(), st.lists(st.one_of(FRAGMENTS, st.text(max_size=3))).map("".join)))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    env_file = tmp_path_factory.getbasetemp() / "any.env"
    env_file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    # Any other error than InputError would fail the test.
    with contextlib.suppress(InputError):
        lines = [line for _, line in read_env_file(env_file).values()]
        assert lines == sorted(lines)
