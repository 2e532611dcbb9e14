"""A row that the chat template refuses."""

from lib.data.chat.encoded import EncodedRow
from lib.data.reading.rows import Example
from lib.settings.errors import Problem


def unrenderable(example: Example) -> EncodedRow:
    return EncodedRow(example.row_id, example.source, example.labels, "unrenderable", [], [], 0)


def refused(example: Example, reason: str) -> Problem:
    return Problem(
        where=example.row_id,
        key="chat template",
        value=" → ".join(message.role for message in example.messages),
        expected=reason,
        remedy="mend the row, or choose another SFT_CHAT_TEMPLATE",
    )
