"""The chat format of a tokenizer that transformers has loaded with its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.data.chat.chat_format import ChatFormat
from lib.settings.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_of(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatFormat:
    """The ChatFormat of a transformers tokenizer, which takes on the template, so that the one that is saved
    beside the adapter is the one that was trained on.

    `template` is SFT_CHAT_TEMPLATE. InputError for an unknown template or a tokenizer without fast version.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError.of(
            where="tokenizer of the base model",
            key="SFT_BASE_MODEL",
            value=type(tokenizer).__name__,
            expected="a tokenizer with a fast version (tokenizer.json): masks need character offsets",
            remedy="convert it once with transformers and save it beside the model",
        )
    own = tokenizer.chat_template
    chat = ChatFormat.from_tokenizer(
        backend,
        tokenizer.special_tokens_map,
        template=template,
        own_template=own if isinstance(own, str) else None,
    )
    if chat.template is not None:
        tokenizer.chat_template = chat.template
    return chat
