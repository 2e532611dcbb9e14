"""Answers that are documents: do they parse, and do they hold the keys and the values of the reference?

A row whose reference does not parse in its own format is counted (`gen_unusable_reference_rate`) and judged
by nothing else. An answer that does not parse has no paths and no leaves: all of the reference's are
missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lib.evaluation.answers import Judgement, answer_part
from lib.evaluation.formats import READERS, Document, Unparsable, read_document
from lib.evaluation.leaves import comparable, key_paths, leaves, shown_path, shown_value
from lib.evaluation.structeval import structeval_score
from lib.evaluation.tally import Tally

FORMAT_LABELS = ("format", "output_type", "type")
"""Labels that may name the format, the first that does counts."""
CONVERSION = re.compile(r".*(?:[\s_-]to[\s_-]|2)(\w+)")
"""`json_to_toml`, `Text to TOML`, `csv2yaml`: the format stands last."""
SHOWN = 20


def format_of(labels: Mapping[str, str]) -> str | None:
    """The format that an answer is asked for in, or None."""
    for label in FORMAT_LABELS:
        value = labels.get(label, "").strip().lower()
        conversion = CONVERSION.fullmatch(value)
        name = conversion.group(1) if conversion else value
        name = "yaml" if name == "yml" else name
        if name in READERS:
            return name
    return None


def judge(answer: str, reference: str, labels: Mapping[str, str], markers: Sequence[str]) -> Judgement:
    """The answer's document against the reference's, in the format that the labels name.

    gen_parse_rate         the answer parses, strictly
    gen_key_path_score     key paths of the reference that the answer has, of all; micro over rows
    gen_leaf_f1            2tp / (2tp + fp + fn) over leaves, each a path and a value; micro over rows.
                           A list is compared position by position: its order is content.
    gen_exact_match_rate   the same leaves, neither more nor fewer
    gen_structeval_score   see lib/evaluation/structeval.py
    and the first four again per format, as `gen_parse_rate/toml`.
    """
    document = answer_part(answer, markers)
    format_name = format_of(labels)
    if format_name is None:
        return Judgement({}, {"error": "no label names a known format"}, document)
    expected, fault = _read(answer_part(reference, markers), format_name)
    if fault:
        verdict = {"format": format_name, "unusable_reference": fault}
        return Judgement({"gen_unusable_reference_rate": (1, 1)}, verdict, document)
    found, error = _read(document, format_name)
    tally, differences = _compare(expected, found, format_name, parsed=not error)
    structeval = structeval_score(document, expected, format_name)
    return Judgement(
        {
            "gen_unusable_reference_rate": (0, 1),
            **tally,
            **{f"{metric}/{format_name}": share for metric, share in tally.items()},
            **({} if structeval is None else {"gen_structeval_score": (structeval, 1)}),
        },
        {"format": format_name, "parses": not error, "error": error, **differences},
        document,
    )


def _read(text: str, format_name: str) -> tuple[Document, str]:
    """(document, "") or (None, why there is none)."""
    try:
        return read_document(text, format_name), ""
    except Unparsable as error:
        return None, error.reason


def _compare(
    expected: Document, found: Document, format_name: str, *, parsed: bool
) -> tuple[Tally, dict[str, Any]]:
    """The four metrics of one answer, and in what it differs."""
    wanted_paths = dict.fromkeys(key_paths(expected))
    given_paths = dict.fromkeys(key_paths(found) if parsed else ())
    wanted, given = leaves(expected), leaves(found) if parsed else {}
    both = [path for path in wanted if path in given]
    wrong = [p for p in both if comparable(wanted[p], format_name) != comparable(given[p], format_name)]
    right = len(both) - len(wrong)
    exact = right == len(wanted) == len(given)
    missing = [path for path in wanted_paths if path not in given_paths]
    extra = [path for path in given_paths if path not in wanted_paths]
    tally = {
        "gen_parse_rate": (float(parsed), 1.0),
        "gen_key_path_score": (float(len(wanted_paths) - len(missing)), float(len(wanted_paths))),
        "gen_leaf_f1": (2.0 * right, float(len(wanted) + len(given))),  # 2tp + fp + fn
        "gen_exact_match_rate": (float(exact), 1.0),
    }
    return tally, {
        "exact": exact,
        "missing_paths": [shown_path(path) for path in missing[:SHOWN]],
        "extra_paths": [shown_path(path) for path in extra[:SHOWN]],
        "wrong_values": [
            [shown_path(path), shown_value(wanted[path]), shown_value(given[path])] for path in wrong[:SHOWN]
        ],
    }
