"""Values written in JSON: the mix of data sets, the upsampling rules, a file with an object."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lib.settings.readers import (
    Fault,
    Reader,
    RefusedError,
    expand_home,
    local_or_named,
    path,
    words,
    writable,
)
from lib.settings.suggestions import did_you_mean

MIX_FORM = '[{"id": "NAME or path", "weight": 1.0, "split": "train"}, …]'
MIX_KEYS = ("id", "weight", "split")
SHARES_FORM = '0.5 for the whole mix, or {"data set or label": share, …}, shares from 0 to 1'
WHOLE_MIX = "*"
RULES_FORM = '{"label": multiplier, …}, each multiplier a finite number above 0'


@dataclass(frozen=True)
class MixEntry:
    """One data set of the mix. `weight` is its share among the weights; None means all of its rows, once."""

    id: str
    weight: float | None
    split: str = "train"


class BrokenJsonError(RefusedError):
    """Not JSON at all, which lenient runs forgive for the mix; wrong content they do not forgive."""

    def __init__(self, reason: str, form: str) -> None:
        super().__init__(
            Fault(f"JSON: {form}; {reason}", "Use double quotes inside and no comma after the last entry.")
        )
        self.reason = reason


def mix() -> Reader[tuple[MixEntry, ...]]:
    """The value of SFT_DATASET_MIX: at least one entry, weights above 0."""

    def parse(given: str) -> tuple[MixEntry, ...]:
        document = _parse_json(given, MIX_FORM)
        if not isinstance(document, list) or not document:
            raise RefusedError(Fault(f"a JSON list with at least one entry: {MIX_FORM}"))
        faults: list[Fault] = []
        entries = tuple(
            _mix_entry(position, entry, faults) for position, entry in enumerate(document, start=1)
        )
        if faults:
            raise RefusedError(*faults)
        return entries

    return Reader(f"a JSON list, `{MIX_FORM}`; weights above 0", parse)


def whole_sets() -> Reader[tuple[MixEntry, ...]]:
    """The value of SFT_DATASET_IDS: all rows of each data set."""
    names = words("a comma-separated list of Hub ids or local paths")
    return Reader(
        names.allowed, lambda given: tuple(_whole_set(name, names.allowed) for name in names.parse(given))
    )


def whole_set() -> Reader[tuple[MixEntry, ...]]:
    """The value of SFT_DATASET_ID: all rows of one data set."""
    name = local_or_named("a Hub id or a local path")
    return Reader(name.allowed, lambda given: (_whole_set(name.parse(given), name.allowed),))


def rules() -> Reader[Mapping[str, float]]:
    """The value of SFT_UPSAMPLE_RULES; the empty text is no rule."""

    def parse(given: str) -> Mapping[str, float]:
        document = _parse_json(given, RULES_FORM) if given else {}
        if not isinstance(document, dict):
            raise RefusedError(Fault(f"a JSON object: {RULES_FORM}"))
        wrong = {label: factor for label, factor in document.items() if not (label and is_positive(factor))}
        if wrong:
            raise RefusedError(
                *(Fault(f"a JSON object: {RULES_FORM}", value=_as_json({k: v})) for k, v in wrong.items())
            )
        return {label: float(factor) for label, factor in document.items()}

    return Reader(f"a JSON object, `{RULES_FORM.partition(',')[0]}}}`; multipliers above 0", parse)


def shares() -> Reader[Mapping[str, float]]:
    """The value of SFT_NEGATIVE_SHARE: one share, kept under WHOLE_MIX, or one by data set or label."""

    def parse(given: str) -> Mapping[str, float]:
        document = _parse_json(given, SHARES_FORM) if given else {}
        if not isinstance(document, dict):
            if not _is_share(document):
                raise RefusedError(Fault(SHARES_FORM))
            return {WHOLE_MIX: float(document)}
        wrong = {name: share for name, share in document.items() if not (_is_name(name) and _is_share(share))}
        if wrong or WHOLE_MIX in document:
            faults = wrong or {WHOLE_MIX: document[WHOLE_MIX]}
            raise RefusedError(*(Fault(SHARES_FORM, value=_as_json({k: v})) for k, v in faults.items()))
        return {name: float(share) for name, share in document.items()}

    return Reader(SHARES_FORM, parse)


def object_file(allowed: str) -> Reader[Path]:
    """A path to a file that holds a JSON object."""

    def parse(given: str) -> Path:
        found = path(allowed).parse(given)
        try:
            document = _parse_json(found.read_text(encoding="utf-8-sig"), "an object")
        except BrokenJsonError as error:
            raise RefusedError(Fault(f"{allowed}; in this file, {error.reason}")) from error
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(Fault(f"{allowed}, readable as UTF-8 ({error})")) from error
        if not isinstance(document, dict):
            raise RefusedError(Fault(f"{allowed}; this file holds something else than {{…}}"))
        return found

    return Reader(allowed, parse)


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0 (true and false are not numbers here)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value)) and value > 0
    except OverflowError:
        return False


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= 1


def _whole_set(name: str, allowed: str) -> MixEntry:
    return MixEntry(expand_home(name, allowed), weight=None)


def _mix_entry(position: int, entry: Any, faults: list[Fault]) -> MixEntry:
    """The entry, or a stand-in when something was added to `faults`."""
    stand_in = MixEntry("", None)
    if not isinstance(entry, dict):
        faults.append(Fault(f'entry {position} as an object with an "id"', value=_as_json(entry)))
        return stand_in
    before = len(faults)
    for name in sorted(entry.keys() - set(MIX_KEYS)):
        expected = f"only id, weight and split in entry {position}, not {name!r}"
        faults.append(Fault(expected, did_you_mean(name, MIX_KEYS) or "Delete it.", _as_json(entry)))
    weight, split = entry.get("weight", 1.0), entry.get("split", "train")
    if not is_positive(weight):
        faults.append(
            Fault(f"a weight that is a finite number above 0 in entry {position}", value=_as_json(entry))
        )
    if not _is_name(split):
        faults.append(
            Fault(f'the name of a split, such as "train", in entry {position}', value=_as_json(entry))
        )
    if not _is_name(entry.get("id")):
        faults.append(Fault(f'an "id" (a Hub id or a local path) in entry {position}', value=_as_json(entry)))
    if len(faults) > before:
        return stand_in
    return MixEntry(
        expand_home(entry["id"].strip(), "a Hub id or a local path"), float(weight), split.strip()
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and writable(value)


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _parse_json(given: str, form: str) -> Any:
    """Raises BrokenJsonError; keys given twice, NaN and Infinity are not taken, unlike in json.loads."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = sorted({name for name, _ in pairs if [key for key, _ in pairs].count(name) > 1})
            raise RefusedError(Fault(f"every key of an object once, not {', '.join(map(repr, twice))} twice"))
        return found

    try:
        return json.loads(given, parse_constant=no_constant, object_pairs_hook=unique)
    except RefusedError:
        raise
    except RecursionError as error:
        raise BrokenJsonError("it is nested too deeply", form) from error
    except ValueError as error:
        raise BrokenJsonError(str(error), form) from error
