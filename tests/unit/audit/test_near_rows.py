"""Near rows: what is planted is found, what is not near stays, whatever the machine and its processes."""

import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from audited_rows import sentence, table
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.audit.near import COMPARED, NEAREST, NearRows
from lib.audit.repeats import Near, near_duplicates
from lib.audit.shingles import compared_texts, jaccard, shingle_sets
from lib.audit.sketches import FOUND, PLACES, band_width, sketch
from lib.data.reading.rows import Example
from lib.data.reading.usable_rows import SourceRows

MARKERS = ("Output:",)
JAPANESE = "容疑者は三日午後、市内の駅前で財布を盗んだ疑いで現行犯逮捕された。署は余罪も調べている。"


def similarity(one: Example, other: Example) -> float:
    sets = [shingle_sets(compared_texts(row, MARKERS)) for row in (one, other)]
    return min(jaccard(first, second) for first, second in zip(*sets, strict=True))


def found_in(tables: Sequence[SourceRows], threshold: float) -> dict[str, str]:
    """Row id → row id of its twin."""
    found = near_duplicates(tables, Near(MARKERS, threshold))
    return {finding.row_id: finding.other for finding in found}


def changed(text: str, places: Sequence[int]) -> str:
    characters = [*text]
    for place in places:
        characters[place % len(characters)] = "★"
    return "".join(characters)


@st.composite
def planted(draw: st.DrawFn) -> tuple[SourceRows, set[str]]:
    """Rows that are all different, some of them again with one character changed, in any order."""
    base = draw(st.lists(st.integers(0, 10_000), min_size=2, max_size=12, unique=True))
    rows = [(f"{sentence(n)} {JAPANESE}", f"{sentence(n + 20_000)} {JAPANESE}") for n in base]
    again = draw(st.lists(st.integers(0, len(base) - 1), max_size=6, unique=True))
    twins = [
        (changed(rows[i][0], [draw(st.integers(0, 200))]), changed(rows[i][1], [draw(st.integers(0, 200))]))
        for i in again
    ]
    order = draw(st.permutations([*range(len(base)), *(-1 - i for i in again)]))
    texts = [rows[n] if n >= 0 else twins[again.index(-1 - n)] for n in order]
    made = table([{"prompt": question, "completion": answer} for question, answer in texts])
    later = {
        f"a#{place}" for place, n in enumerate(order) if (-1 - n in order[:place])
    }  # the second of each pair
    return made, later


@given(planted())
@settings(max_examples=40, deadline=None)
def test_every_planted_row_is_found_and_no_clean_one(case: tuple[SourceRows, set[str]]) -> None:
    rows, later = case
    assert set(found_in([rows], 0.9)) == later


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 150), max_size=12)), min_size=2, max_size=16
    ),
    st.sampled_from([0.6, 0.8, 0.9, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_first_stays_and_every_removed_row_has_a_kept_twin(
    changes: list[tuple[int, list[int]]], threshold: float
) -> None:
    """Against all pairs. Rows that are only as similar as the threshold may be missed, with probability
    1 - FOUND; so the check for missed ones is a little above it."""
    texts = [changed(sentence(number), places) for number, places in changes]
    rows = table([{"prompt": "q", "completion": text} for text in texts])
    distinct = {row.key: row for row in reversed(rows.examples)}
    found = found_in([rows], threshold)
    by_id = {row.row_id: row for row in rows.examples}
    for name, other in found.items():
        assert other not in found
        assert by_id[other].index < by_id[name].index
        assert similarity(by_id[name], by_id[other]) >= threshold
    kept = [row for row in rows.examples if row.row_id not in found and distinct[row.key] is row]
    for place, row in enumerate(kept):
        nearest = max((similarity(row, earlier) for earlier in kept[:place]), default=0.0)
        assert nearest < min(threshold + 0.04, 1.0)


@given(st.permutations(range(8)))
@settings(max_examples=15, deadline=None)
def test_as_many_stay_in_any_order(order: list[int]) -> None:
    """Pairs of twins: which of a pair stays follows the order, how many do does not."""
    texts = [changed(sentence(n // 2), [7] * (n % 2)) for n in order]
    assert len(found_in([table([{"prompt": "q", "completion": text} for text in texts])], 0.9)) == 4


def test_questions_and_answers_both_have_to_be_near() -> None:
    same_answer = table([{"prompt": sentence(i), "completion": JAPANESE} for i in range(3)])
    same_question = table([{"prompt": JAPANESE, "completion": sentence(i)} for i in range(3)])
    assert found_in([same_answer], 0.5) == found_in([same_question], 0.5) == {}


def test_copies_share_the_fate_of_their_row() -> None:
    one, other = sentence(1), changed(sentence(1), [5])
    rows = table([{"prompt": "q", "completion": text} for text in (one, other, one, other)])
    assert found_in([rows], 0.9) == {"a#1": "a#0", "a#3": "a#0"}


def test_twins_are_found_across_data_sets_and_the_first_data_set_keeps_its_row() -> None:
    first = table([{"prompt": "q", "completion": sentence(1)}], "first")
    second = table([{"prompt": "q", "completion": changed(sentence(1), [3])}], "second")
    assert found_in([first, second], 0.9) == {"second#0": "first#0"}
    assert found_in([second, first], 0.9) == {"first#0": "second#0"}


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_compare(rows: int) -> None:
    assert found_in([table([{"prompt": "q", "completion": "a"}] * rows)], 0.9) == {}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_meet_rows_at_the_threshold(threshold: float) -> None:
    width = band_width(threshold)
    bands = PLACES // width
    assert 1 - (1 - threshold**width) ** bands >= FOUND
    wider = 1 - (1 - threshold ** (width + 1)) ** (PLACES // (width + 1))
    assert wider < FOUND or width == PLACES


def test_rows_of_one_pattern_cost_a_bounded_number_of_comparisons() -> None:
    """A thousand rows that are alike, but not near: each is compared with at most COMPARED others."""
    texts = [("", f"{sentence(0)} {sentence(n)[:14]}") for n in range(1000)]
    compared: list[int] = []
    near = NearRows(sketch(texts, 0.9), lambda n: compared.append(n) or texts[n], 0.9)
    near._similarity = lambda one, other: compared.append(one) or 0.0  # type: ignore[method-assign]
    assert list(near.repeated(range(1000))) == []
    assert len(compared) > 0
    assert np.bincount(compared).max() <= COMPARED < NEAREST


def test_other_processes_and_hash_seeds_find_the_same() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from audited_rows import sentence, table\n"
        "from test_near_rows import changed, found_in\n"
        "texts = [changed(sentence(n % 40), range(n % 7)) for n in range(200)]\n"
        "print(sorted(found_in([table([{'prompt': 'q', 'completion': t} for t in texts])], 0.8).items()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, *sys.path],
            env={"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "4"))
    }
    assert len(said) == 1
    assert "a#" in said.pop()


def test_a_planted_row_is_found_among_many_of_its_pattern() -> None:
    """Short news of one pattern, 3,000 of them, and 20 again with one word changed."""
    rng = random.Random(3)
    places = [f"{a}{b}署" for a in "東西南北中上下" for b in "山川田島野原崎浦"]
    acts = ["傷害", "窃盗", "脅迫", "放火", "詐欺", "強盗", "暴行", "横領"]
    texts = [
        f"{rng.choice(places)}は{rng.randint(1, 28)}日、管内で{rng.choice(acts)}の被害が相次いでいるとして"
        f"注意を呼びかけた。件数は{n}件で、{sentence(n)[:60]}だった。戸締まりの確認を求めている。"
        for n in range(3000)
    ]
    chosen = rng.sample(range(3000), 20)
    rows = [*texts, *(texts[n].replace("戸締まり", "施錠") for n in chosen)]
    found = found_in([table([{"prompt": text, "completion": "{}"} for text in rows])], 0.85)
    assert {f"a#{3000 + i}" for i in range(20)} <= set(found)
