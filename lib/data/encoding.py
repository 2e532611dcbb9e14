"""Rows as tokens, under the settings of a stage."""

from collections.abc import Iterable, Sequence

from lib.data.cache import DataCache
from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.encoded import EncodedRow
from lib.data.chat.masks import EncodingRules
from lib.data.chat.refused_rows import refused
from lib.data.chat.token_guess import guess_row
from lib.data.reading.first_problems import FirstProblems
from lib.data.reading.rows import Example
from lib.settings.errors import InputError, Problem
from lib.settings.schema import StageSettings

Encoded = dict[str, EncodedRow]
"""By row id."""


def encode_rows(
    chat: ChatFormat | None, examples: Iterable[Example], settings: StageSettings, *, kept: bool = True
) -> tuple[Encoded, list[str]]:
    """Each distinct row once, and notices. Rows that the template refuses: InputError, or lenient a notice.

    Rows of large data sets are kept on disk, but for a sample (`kept` false). Without a tokenizer (a plan on
    a machine that lacks it) lengths are guessed from characters.
    """
    distinct = list({example.row_id: example for example in examples}.values())
    rules = EncodingRules.of(settings.data)
    if chat is None:
        return {example.row_id: guess_row(example, rules) for example in distinct}, []
    loose = [example for example in distinct if type(example) is Example] if kept else distinct
    rows, reasons = _encode_stored(chat, distinct, settings, build=True) if kept else ({}, {})
    encoded = chat.encode(loose, rules)
    rows.update((row.row_id, row) for row in encoded.rows)
    problems = list(encoded.problems)
    if reasons:
        known = {problem.where: problem for problem in problems}
        problems = [
            known.get(example.row_id) or refused(example, reasons[example.row_id])
            for example in distinct
            if example.row_id in known or example.row_id in reasons
        ]
    return rows, _notices(problems, len(distinct), strict=settings.strict)


def known_rows(chat: ChatFormat | None, examples: Iterable[Example], settings: StageSettings) -> Encoded:
    """Those rows that an earlier start left encoded, if the template took all of them."""
    if chat is None:
        return {}
    rows, reasons = _encode_stored(chat, list(examples), settings, build=False)
    return {} if reasons else rows


def _encode_stored(
    chat: ChatFormat, examples: Sequence[Example], settings: StageSettings, *, build: bool
) -> tuple[Encoded, dict[str, str]]:
    if all(type(example) is Example for example in examples):
        return {}, {}
    from lib.data.stored.encode import encode_stored
    from lib.data.stored.examples import StoredExample

    stored = [example for example in examples if isinstance(example, StoredExample)]
    cache = DataCache.of(settings.data)
    if not cache:
        raise AssertionError("without a cache no example is stored")
    return encode_stored(cache, chat, EncodingRules.of(settings.data), stored, build=build)


def _notices(problems: Sequence[Problem], rows: int, *, strict: bool) -> list[str]:
    if not problems:
        return []
    found = FirstProblems()
    found.extend(problems)
    if strict:
        raise InputError(found.all_shown("data", "rows that the chat template refuses", rows))
    return [
        f"[ERROR] the chat template refuses {found.total} of {rows} rows, which were dropped; "
        f"the first is {problems[0].where}: {problems[0].expected}"
    ]
