import random
import time

from lib.report.differences import LONGEST_TEXT, Piece, difference


def joined(pieces: tuple[Piece, ...]) -> str:
    return "".join(piece.text for piece in pieces)


def marked(pieces: tuple[Piece, ...]) -> list[str]:
    return [piece.text for piece in pieces if piece.differs]


def test_words_that_differ_are_marked_on_both_sides() -> None:
    found = difference("title = red\nyear = 1906", "title = red\nyear = 1907")
    assert marked(found.reference) == ["1906"]
    assert marked(found.answer) == ["1907"]
    assert not found.equal


def test_equal_texts_have_no_marks() -> None:
    assert difference("same\n", "same\n").equal
    assert difference("", "").equal


def test_japanese_is_compared_character_by_character() -> None:
    found = difference("吾輩は猫である", "吾輩は犬である")
    assert (marked(found.reference), marked(found.answer)) == (["猫"], ["犬"])


def test_an_empty_answer_lacks_everything() -> None:
    found = difference("all of it", "")
    assert marked(found.reference) == ["all of it"]
    assert found.answer == ()


def test_nothing_is_lost_or_added() -> None:
    source = random.Random(7)
    for _ in range(200):
        left, right = ("".join(source.choices("ab \n=猫", k=source.randint(0, 30))) for _ in range(2))
        found = difference(left, right)
        assert (joined(found.reference), joined(found.answer)) == (left, right)
        kept = [
            [piece.text for piece in side if not piece.differs] for side in (found.reference, found.answer)
        ]
        assert "".join(kept[0]) == "".join(kept[1])


def test_long_texts_are_compared_by_lines() -> None:
    lines = [f"line {number} of it" for number in range(400)]
    other = [line.replace("line", "row") for line in lines]
    other[200] = lines[200]
    found = difference("\n".join(lines), "\n".join(other))
    assert "line by line" in found.note
    assert [piece.text for piece in found.answer if not piece.differs] == [lines[200] + "\n"]


def test_huge_texts_stay_bounded() -> None:
    source = random.Random(7)
    left, right = ("\n".join(source.choices("abc", k=500_000)) for _ in range(2))
    begin = time.thread_time()
    found = difference(left, right)
    assert time.thread_time() - begin < 5
    assert "not marked" in found.note
    assert f"first {LONGEST_TEXT:,}" in found.note
    assert len(joined(found.answer)) == LONGEST_TEXT
