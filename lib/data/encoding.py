"""Rows as tokens, under the settings of a stage."""

from collections.abc import Iterable

from lib.data.chat import ChatFormat
from lib.data.encoded import EncodedRow
from lib.data.first_problems import FirstProblems
from lib.data.masks import EncodingRules
from lib.data.rows import Example
from lib.data.token_guess import guess_row
from lib.settings.errors import InputError
from lib.settings.schema import StageSettings

Encoded = dict[str, EncodedRow]
"""By row id."""


def encode_rows(
    chat: ChatFormat | None, examples: Iterable[Example], settings: StageSettings
) -> tuple[Encoded, list[str]]:
    """Each distinct row once, and notices. Rows that the template refuses: InputError, or lenient a notice.

    Without a tokenizer (a plan on a machine that lacks it) lengths are guessed from characters.
    """
    distinct = list({example.row_id: example for example in examples}.values())
    rules = EncodingRules.of(settings.data)
    if chat is None:
        return {example.row_id: guess_row(example, rules) for example in distinct}, []
    encoded = chat.encode(distinct, rules)
    notices = []
    if encoded.problems:
        refused = FirstProblems()
        refused.extend(encoded.problems)
        if settings.strict:
            raise InputError(refused.all_shown("data", "rows that the chat template refuses", len(distinct)))
        first = encoded.problems[0]
        notices.append(
            f"[ERROR] the chat template refuses {refused.total} of {len(distinct)} rows, which were dropped; "
            f"the first is {first.where}: {first.expected}"
        )
    return {row.row_id: row for row in encoded.rows}, notices
