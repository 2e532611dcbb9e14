"""Parts of a split mean what they mean to `datasets`."""

import pytest
from datasets import ReadInstruction
from hypothesis import given
from hypothesis import strategies as st

from lib.data.reading.split_parts import parse_split

borders = st.none() | st.integers(-120, 120)


@given(size=st.integers(0, 130), first=borders, last=borders, percent=st.booleans())
def test_the_same_rows_as_datasets_takes(
    size: int, first: int | None, last: int | None, percent: bool
) -> None:
    def text(border: int | None) -> str:
        return "" if border is None else f"{max(-100, min(border, 100))}%" if percent else str(border)

    split = f"train[{text(first)}:{text(last)}]"
    part = parse_split(split)
    assert part is not None
    (theirs,) = ReadInstruction.from_spec(split).to_absolute({"train": size})
    rows = [{"number": number} for number in range(size)]
    assert part.of(rows) == rows[theirs.from_ : theirs.to]


def test_the_first_96000_of_100000() -> None:
    rows = [{"number": number} for number in range(100_000)]
    for split in ("train[:96000]", "train[:96%]"):
        part = parse_split(split)
        assert part is not None
        assert part.of(rows) == rows[:96_000]


@pytest.mark.parametrize("text", ["train+test", "train[1]", "train[a:b]", "[:3]", "train[:3", "train[:3]x"])
def test_what_is_no_part(text: str) -> None:
    assert parse_split(text) is None
