"""The worked examples of docs/mixing.md on the next stage, computed."""

import re

import pytest
from scored_labels import label_line, scored_record
from stage_records import retained

from lib.report.next_stage import next_stage
from tests.unit.data.mixing.test_mixing_page import Row, tables

LABELS, FORGOTTEN = list(tables("label, score, draws")), list(tables("best"))


def scored(cell: str) -> tuple[float, tuple[float, float]]:
    score, low, high = map(float, re.findall(r"[\d.]+", cell)[:3])
    return score, (low, high)


@pytest.mark.parametrize("example", LABELS, ids=lambda row: " ".join(row.values()))
def test_an_example_of_a_label(example: Row) -> None:
    *_, own, draws = map(int, re.findall(r"\d+", example["label, score, draws"]))
    record = scored_record(
        {"xml": scored(example["label, score, draws"]), "json": (0.9, (0.85, 0.95))},
        scored(example["all rows"]),
        [label_line("format", "xml", own), label_line("format", "json", draws - own)],
        draws=draws,
        size=float(example["size"]),
        SFT_USE_UPSAMPLING="1",
        SFT_UPSAMPLE_RULES=f'{{"xml": {example["had"]}}}',
        SFT_DATASET_MIX_TOTAL_SIZE=example["size"],
    )
    changed = {change.key: change for change in next_stage(record, []).changes}
    if example["multiplier"] == "left alone":
        assert (changed, example["new size"]) == ({}, example["size"])
        return
    exact, stated = re.findall(r"[\d.]+", example["multiplier"])
    assert changed["SFT_UPSAMPLE_RULES"].value == f'{{"xml": {float(stated)}}}'
    assert f"= {exact}" in changed["SFT_UPSAMPLE_RULES"].why
    assert changed["SFT_DATASET_MIX_TOTAL_SIZE"].value == example["new size"]


@pytest.mark.parametrize("example", FORGOTTEN, ids=lambda row: " ".join(row.values()))
def test_an_example_of_a_forgotten_stage(example: Row) -> None:
    best = float(example["best"])
    now, interval = scored(example["now"])
    everything = (best, (best, best))
    first = scored_record({}, everything, [], stage=1)
    entry = retained(1, now) | {"interval": list(interval)}
    second = scored_record({}, everything, [], retention=(entry,), SFT_REPLAY=example["SFT_REPLAY was"])
    changed = {change.key: change.value for change in next_stage(second, [first]).changes}
    assert float(changed.get("SFT_REPLAY", example["SFT_REPLAY was"])) == float(example["becomes"])


def test_every_example_is_read() -> None:
    assert (len(LABELS), len(FORGOTTEN)) == (4, 5)
