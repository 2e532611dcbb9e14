"""An answer that is an extraction record: whether it names an offender."""

from typing import Any

from lib.files import parse_json

PERSONS, OFFENDER, ACT = "persons", "is_offender", "act"


def answer_is_negative(answer: str) -> bool | None:
    """Whether an extraction record names no offender; None for anything that is no such record."""
    if f'"{PERSONS}"' not in answer:
        return None
    said = answer.rpartition("</think>")[2]
    try:
        record = parse_json(said[said.find("{") : said.rfind("}") + 1])
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get(PERSONS), list):
        return None
    return not any(is_offender(person) for person in record[PERSONS])


def is_offender(person: Any) -> bool:
    """`is_offender` is true and `act` says something."""
    return isinstance(person, dict) and person.get(OFFENDER) is True and bool(_said(person.get(ACT)))


def _said(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None
