"""Answers in free text: do they keep to a style, and how near are they to the reference?"""

from __future__ import annotations

from typing import Any

import regex

from lib.evaluation.answers import Judgement, spoken
from lib.evaluation.bounds import LONGEST_DOCUMENT

LONGEST_MATCH_SECONDS = 1.0
"""Regular expressions can take time exponential in the text; one that does counts as not matching."""


def judge(answer: str, reference: str, style: str) -> Judgement:
    """The spoken part of an answer (what follows `</think>`, at most LONGEST_DOCUMENT characters).

    gen_style_rate  the regular expression `style` is found in the answer (anchors are the user's); an empty
                    answer keeps to no style. Left out when `style` is empty.
    gen_chrf        sentence chrF, from 0 to 1, mean over rows: F2 of character n-grams up to 6 (Popović 2015,
                    "chrF: character n-gram F-score for automatic MT evaluation"), as sacrebleu computes it.
                    Rows with an empty reference are left out and counted in gen_unusable_reference_rate.

    Raises regex.error when `style` is no regular expression.
    """
    said, wanted = (spoken(text).strip()[:LONGEST_DOCUMENT] for text in (answer, reference))
    tally: dict[str, tuple[float, float]] = {"gen_unusable_reference_rate": (float(not wanted), 1.0)}
    verdict: dict[str, Any] = {}
    if style:
        verdict = _style(said, style)
        tally["gen_style_rate"] = (float(verdict["style"]), 1.0)
    if wanted:
        tally["gen_chrf"] = (chrf(said, wanted), 1.0)
    else:
        verdict["unusable_reference"] = "empty"
    return Judgement(tally, verdict, said)


def _style(said: str, style: str) -> dict[str, Any]:
    try:
        return {"style": bool(said) and bool(regex.search(style, said, timeout=LONGEST_MATCH_SECONDS))}
    except TimeoutError:
        return {"style": False, "error": f"the style rule took longer than {LONGEST_MATCH_SECONDS} s"}


def chrf(answer: str, reference: str) -> float:
    """chrF2 of one answer, from 0 to 1; white space does not count."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(answer, [reference]).score) / 100
