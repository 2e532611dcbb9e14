"""Data sets that were put behind one another, as the mix of a stage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lib.importing.draft import StageDraft


@dataclass(frozen=True)
class DataSet:
    """One data set; `source` is the key that names it."""

    id: str
    split: str
    source: str


def set_mix(draft: StageDraft, sets: Sequence[DataSet], source: str, differs: str = "") -> None:
    """Every row of every data set once; of one that is listed twice, twice.

    With weights as shares, the default of SFT_MIX_WEIGHTS, equal weights would mean equal parts of the mix.
    """
    if len(sets) == 1 and sets[0].split == "train":
        draft.set("SFT_DATASET_ID", sets[0].id, f"{sets[0].source}: all rows, once", differs)
    elif sets:
        write_mix(draft, [(entry.id, entry.split, 1) for entry in sets], source, differs)
        explained = "weight 1 is every row of a data set once (share, our default: part of the mix)"
        draft.set("SFT_MIX_WEIGHTS", "multiplier", explained)


def write_mix(
    draft: StageDraft, entries: Sequence[tuple[str, str, float]], source: str, differs: str = ""
) -> None:
    """Entries are id, split and weight."""
    rows = [
        json.dumps(
            {"id": name, "weight": weight} | ({} if split == "train" else {"split": split}),
            ensure_ascii=False,
        )
        for name, split, weight in entries
    ]
    draft.set("SFT_DATASET_MIX", "[\n  " + ",\n  ".join(rows) + "\n]", source, differs)
