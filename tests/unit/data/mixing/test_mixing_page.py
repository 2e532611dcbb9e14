"""The worked examples of docs/mixing.md, computed."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.data.mixing.amounts import Algebra
from lib.data.mixing.mixture import Mixture, plan_mixture
from lib.data.mixing.negatives import NegativeRule
from lib.data.mixing.replay import ReplayPool, ReplaySource, replay_rows
from lib.data.order.order import PACING, TrainingOrder
from lib.data.order.schedule import Schedule
from lib.data.reading.rows import to_example
from lib.data.reading.usable_rows import SourceRows
from lib.settings import InputError, load_stage

PAGE = Path(__file__).parents[4] / "docs/mixing.md"
Row = dict[str, str]


def tables(first_column: str) -> Iterator[Row]:
    """Rows of every table whose first column has this name, by the names of the columns."""
    columns: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif columns[0] == first_column and set(line) - set("|-"):
            yield dict(zip(columns, cells, strict=True))


def sources(example: Row) -> tuple[list[SourceRows], dict[str, int]]:
    """The data sets of an example, and the tokens of their rows by row id."""
    weights = dict(re.findall(r"(\w) ([\d.]+)", example["weights"]))
    made, tokens = [], {}
    pattern = r"(\w) (\d+)(?: of (\d+) tokens)?(?: with (\d+) negatives)?"
    for name, count, size, negatives in re.findall(pattern, example["data sets"]):
        rows = [
            {
                "prompt": "q",
                "completion": f"{name} {i}",
                "task": "toml" if name == "A" else "other",
                "type": "negative" if i < int(negatives or 0) else "positive",
            }
            for i in range(int(count))
        ]
        examples = tuple(to_example(row, name, i) for i, row in enumerate(rows))
        tokens |= {row.row_id: int(size or 1) for row in examples}
        made.append(SourceRows(name, float(weights[name]) if weights else None, examples))
    return made, tokens


def mixture_of(example: Row, folder: Path) -> Mixture:
    keys = dict(setting.split("=", 1) for setting in example["settings"].split())
    given, tokens = sources(example)
    mix = [
        {"id": table.name} | ({"weight": table.weight} if table.weight is not None else {}) for table in given
    ]
    weighted = given[0].weight is not None
    data = {"SFT_DATASET_MIX": json.dumps(mix)} if weighted else {"SFT_DATASET_IDS": "A,B"}
    if "SFT_UPSAMPLE_RULES" in keys:
        data["SFT_USE_UPSAMPLING"] = "1"
    if "SFT_NEGATIVE_SHARE" in keys:
        data["SFT_NEGATIVE_LABELS"] = "negative"
    values = {"SFT_BASE_MODEL": "b", "SFT_OUT_LORA_DIR": "o", **data, **keys}
    (folder / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
    settings = load_stage(folder, 1, environ={}).data
    return plan_mixture(
        given,
        val_ratio=0,
        seed=1,
        rules=settings.upsample_rules,
        algebra=Algebra.of(settings),
        sizes=tokens if settings.mix_unit != "rows" else None,
        negatives=NegativeRule.of(settings),
    )


@pytest.mark.parametrize("example", tables("data sets"), ids=lambda row: " ".join(row.values()))
def test_an_example_of_the_mix(example: Row, tmp_path: Path) -> None:
    if example["drawn"] == "refused":
        with pytest.raises(InputError, match="SFT_MIX_EXHAUSTED"):
            mixture_of(example, tmp_path)
        return
    mixture = mixture_of(example, tmp_path)
    drawn = Counter(row.source for row in mixture.train)
    negatives = Counter(row.source for row in mixture.train if "negative" in {x.value for x in row.labels})
    stated = {
        name: (int(count), int(negative or 0))
        for name, count, negative in re.findall(r"(\w) (\d+)(?: with (\d+) negatives)?", example["drawn"])
    }
    assert {name: (drawn[name], negatives[name]) for name in drawn} == stated
    times = Counter(row.row_id for row in mixture.train)
    for name, low, high in re.findall(r"(\w) (\d+)(?:–(\d+))?", example["times each row"]):
        rows = next(line.rows for line in mixture.ledger.sources if line.id == name)
        counts = {times[f"{name}#{i}"] for i in range(rows)}
        assert (min(counts), max(counts)) == (int(low), int(high or low))


@pytest.mark.parametrize("example", tables("own draws"), ids=lambda row: " ".join(row.values()))
def test_an_example_of_replay(example: Row) -> None:
    rows = tuple(to_example({"text": f"row {i}"}, "A", i) for i in range(50))
    pool = ReplayPool(float(example["SFT_REPLAY"]), (ReplaySource.of(1, "A", rows),))
    own = int(example["own draws"])
    replayed = replay_rows(pool, own, frozenset(), seed=1).draws
    assert len(replayed) == int(example["replayed"])
    assert own + len(replayed) == int(example["all"])


@pytest.mark.parametrize("example", tables("draws"), ids=lambda row: " ".join(row.values()))
def test_an_example_of_epochs(example: Row) -> None:
    order = TrainingOrder(int(example["draws"]), 1)
    counts = (int(example[name]) for name in ("batch", "SFT_GRAD_ACCUM", "processes"))
    schedule = Schedule(order, *counts, float(example["SFT_EPOCHS"]))
    times = schedule.times()
    assert (schedule.steps, times.total()) == (int(example["steps"]), int(example["rows trained"]))
    low, _, high = example["times each row"].partition("–")
    seen = {times[row] for row in range(order.rows)}
    assert (min(seen), max(seen)) == (int(low), int(high or low))


def test_the_examples_of_pacing() -> None:
    shown: dict[str, Callable[[float], float]] = {}
    for example in tables("pacing"):
        shown[example["pacing"]] = PACING[example["pacing"]]
        for column, value in example.items():
            if column != "pacing":
                assert PACING[example["pacing"]](float(column.removeprefix("t = "))) == pytest.approx(
                    float(value), abs=5e-4
                )
    assert shown == dict(PACING)


def test_every_kind_of_example_is_read() -> None:
    counts = [len(list(tables(name))) for name in ("data sets", "own draws", "draws", "pacing")]
    assert counts == [22, 4, 5, 3]
