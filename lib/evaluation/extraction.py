"""Answers that are records of persons in an article: who is an offender, and what is known of them.

A record is a JSON object with three lists: `persons` (objects with `name`, `age`, `position`, `affiliation`,
`address`, `act`, `is_offender`), `occured_locations` (spelled so) and `police_departments`. An offender is a
person with `is_offender` true and an `act` that is not empty. An article with an offender is a positive.

A model that says nothing readable must not look good on any number, so an answer without a record is

- on a positive: a missed offender, with every name missed;
- on a negative: neither a false positive nor a true negative. Counted as a true negative it would give a
  broken model a perfect rate of false positives; counted as a false one it would claim an offender that
  nobody named. `gen_unparsed_rate_on_negative` counts it, and belongs beside `gen_fp_rate_on_negative`,
  which is left out when no negative was read at all;
- no match in any field, even where the reference is empty;
- left out of the average number of offenders.

On negatives every field of the reference is empty, so a model that always says "nobody" matches them all: the
metrics with `_positive` in their name show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.data.reading.extraction_record import is_offender
from lib.evaluation.answers import Judgement, spoken
from lib.evaluation.formats import Document, Unparsable, read_document
from lib.evaluation.tally import Tally

PERSON_FIELDS = ("name", "age", "position", "affiliation", "address", "act")
LIST_FIELDS = ("occured_locations", "police_departments")
FIELDS = (*PERSON_FIELDS, *LIST_FIELDS)
LISTS = ("persons", *LIST_FIELDS)


@dataclass(frozen=True)
class Record:
    """What is compared of a record."""

    names: frozenset[str]
    """Of the offenders; one without a name is not in it."""
    offenders: int
    fields: Mapping[str, str]
    """One text per field: the offenders' values joined by `/` in their order, the lists' items by `,`. All
    empty without an offender."""


def judge(answer: str, reference: str) -> Judgement:
    """The record in the answer against the reference's, by the definitions above."""
    document = record_part(answer)
    gold, fault, _ = _read(record_part(reference))
    if gold is None:
        return Judgement({"gen_unusable_reference_rate": (1, 1)}, {"unusable_reference": fault}, document)
    found, error, parses = _read(document)
    matches = {field: found is not None and found.fields[field] == gold.fields[field] for field in FIELDS}
    tally = {
        "gen_unusable_reference_rate": (0.0, 1.0),
        "gen_json_parse_rate": (float(parses), 1.0),
        "gen_schema_ok_rate": (float(found is not None), 1.0),
        **_presence(gold, found),
        **_names(gold, found),
        **_matches(matches, ""),
        **(_matches(matches, "_positive") if gold.offenders else {}),
        "gen_avg_gold_offender_count": (float(gold.offenders), 1.0),
        **({} if found is None else {"gen_avg_pred_offender_count": (float(found.offenders), 1.0)}),
    }
    verdict = {
        "parses": parses,
        "error": error,
        "exact": all(matches.values()),
        "wrong_values": [
            [field, gold.fields[field], None if found is None else found.fields[field]]
            for field in FIELDS
            if not matches[field]
        ],
    }
    return Judgement(tally, verdict, document)


def record_part(text: str) -> str:
    """After `</think>`, from the first `{` to the last `}`; the whole when there are none."""
    said = spoken(text)
    first, last = said.find("{"), said.rfind("}")
    return said[first : last + 1] if 0 <= first < last else said.strip()


def is_record(document: Document) -> bool:
    """The three keys are there and lead to lists."""
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in LISTS)


def _read(text: str) -> tuple[Record | None, str, bool]:
    """(record or None, why there is none, whether it is JSON at all)."""
    try:
        document = read_document(text, "json")
    except Unparsable as error:
        return None, error.reason, False
    if not isinstance(document, dict) or not is_record(document):
        return None, f"no object with the lists {', '.join(LISTS)}", True
    return _record(document), "", True


def _record(document: Mapping[str, Any]) -> Record:
    persons = [person for person in document["persons"] if isinstance(person, dict)]
    offenders = [person for person in persons if is_offender(person)]

    def joined(field: str) -> str:
        if not offenders:
            return ""
        if field in LIST_FIELDS:
            return ",".join(_text(item) for item in document[field])
        return "/".join(_text(person.get(field)) for person in offenders)

    names = frozenset(_text(person.get("name")) for person in offenders) - {""}
    return Record(names, len(offenders), {field: joined(field) for field in FIELDS})


def _text(value: Any) -> str:
    """As compared: text without white space around it, nothing for null, anything else as JSON (35 is
    "35")."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _presence(gold: Record, found: Record | None) -> Tally:
    """Is there an offender in the article? Precision, recall and F1 over articles, and the negatives."""
    positive, claimed = bool(gold.offenders), found is not None and bool(found.offenders)
    hit, alarm, miss = (
        float(positive and claimed),
        float(claimed and not positive),
        float(positive and not claimed),
    )
    tally = {
        "gen_offender_presence_precision": (hit, hit + alarm),
        "gen_offender_presence_recall": (hit, hit + miss),
        "gen_offender_presence_f1": (2 * hit, 2 * hit + alarm + miss),
    }
    if positive:
        return tally
    return {
        **tally,
        "gen_unparsed_rate_on_negative": (float(found is None), 1.0),
        "gen_fp_rate_on_negative": (alarm, float(found is not None)),  # FP / (FP + TN)
    }


def _names(gold: Record, found: Record | None) -> Tally:
    """Micro F1 over the sets of names."""
    given = frozenset[str]() if found is None else found.names
    return {"gen_offender_name_set_f1": (2.0 * len(gold.names & given), float(len(gold.names) + len(given)))}


def _matches(matches: Mapping[str, bool], suffix: str) -> Tally:
    """Per field, and all of them together."""
    return {
        **{
            f"gen_field_exact_match_rate{suffix}/{field}": (float(match), 1.0)
            for field, match in matches.items()
        },
        f"gen_all_fields_exact_match_rate{suffix}": (float(all(matches.values())), 1.0),
    }
