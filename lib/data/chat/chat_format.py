"""Conversations into token ids and masks, with the tokenizer and chat template of the model."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Encoding, Tokenizer

from lib.data.chat.chat_template import (
    TEMPLATE_ERRORS,
    bundled_templates,
    chosen_template,
    compile_template,
    render,
)
from lib.data.chat.encoded import EncodedRow
from lib.data.chat.masks import EncodingRules, mask_row
from lib.data.chat.refused_rows import refused, unrenderable
from lib.data.chat.template_bounds import many_bounded
from lib.data.chat.tokenizer_files import read_tokenizer_files
from lib.data.chat.tokens import RenderedRow, TextTokens, TokenRow, encode_texts, token_row
from lib.data.chat.turns import TemplateFacts, Turn, find_turns
from lib.data.reading.rows import Example, Message
from lib.settings.errors import InputError, Problem

if TYPE_CHECKING:
    from lib.data.chat.byte_pairs import BytePairs

FIXED_DAY = datetime(2000, 1, 1)
_BATCH = 512
_PROBE = (Message("user", "question"), Message("assistant", "answer"))


@dataclass(frozen=True)
class EncodedRows:
    rows: tuple[EncodedRow, ...]
    """One per example, in order."""
    problems: tuple[Problem, ...]
    """One per row that the chat template refuses; its status is `unrenderable`."""


class ChatFormat:
    """Tokenizer and chat template, as plan, training and evaluation share them.

    Text and ids equal those of transformers' `apply_chat_template`: no token is added that the template does
    not write, but an end-of-sequence token where the template closes the last answer with no special token.
    """

    def __init__(self, tokenizer: Tokenizer, special_tokens: Mapping[str, str], template: str | None) -> None:
        """`template` is jinja source; None will do for plain text. Changes the tokenizer: pass a copy."""
        self.special_tokens = {name: text for name, text in special_tokens.items() if isinstance(text, str)}
        self.template = template
        self.tokenizer = tokenizer
        self._compiled = compile_template(template) if template else None
        self._starts_with_bos = self.bos_id is not None and tokenizer.encode("").ids[:1] == [self.bos_id]
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Post-processors only add special tokens, which we never ask for, and trim white space off the
        # offsets, which would move tokens across the borders of an answer.
        tokenizer.post_processor = None
        self._byte_pairs: BytePairs | None = None

    def __getstate__(self) -> dict[str, object]:
        """For another process; a compiled template cannot be sent."""
        return {**vars(self), "_compiled": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._compiled = compile_template(self.template) if self.template else None

    @cached_property
    def identity(self) -> str:
        """sha256 of all that text and tokens of a conversation follow from."""
        libraries = [version(name) for name in ("tokenizers", "jinja2")]
        parts = [self.tokenizer.to_str(), sorted(self.special_tokens.items()), self.template, libraries]
        return hashlib.sha256(json.dumps([*parts, self._starts_with_bos]).encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path, template: str = "") -> "ChatFormat | None":
        """From a tokenizer folder; None when it has no tokenizer.json, so that only transformers can read it.

        `template` overrides the tokenizer's own: a bundled template's name or a jinja file. InputError when a
        file is broken or the template is unknown.
        """
        override = chosen_template(template) if template else None
        files = read_tokenizer_files(folder)
        if files is None:
            return None
        return cls(files.tokenizer, files.special_tokens, override or files.chat_template)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Tokenizer,
        special_tokens: Mapping[str, str],
        *,
        template: str = "",
        own_template: str | None,
    ) -> "ChatFormat":
        """From transformers' `backend_tokenizer` (copied), `special_tokens_map` and `chat_template`."""
        source = chosen_template(template) if template else own_template
        return cls(Tokenizer.from_str(tokenizer.to_str()), special_tokens, source)

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        on_a_fixed_day: bool = False,
    ) -> str:
        """The conversation as text. InputError without a template; jinja2.TemplateError when it refuses.

        Some templates write today's date; `on_a_fixed_day` makes them comparable."""
        if self._compiled is None:
            raise InputError.of(
                where="tokenizer of the base model",
                key="SFT_CHAT_TEMPLATE",
                value="the tokenizer has no chat template",
                expected="a template to write conversations with",
                remedy=f"set SFT_CHAT_TEMPLATE to a jinja file or one of: {', '.join(bundled_templates())}",
            )
        plain = [{"role": message.role, "content": message.content} for message in messages]
        names: dict[str, object] = {**self.special_tokens}
        if on_a_fixed_day:
            names["strftime_now"] = FIXED_DAY.strftime
        return render(self._compiled, plain, names, add_generation_prompt=add_generation_prompt)

    def ids_of(self, text: str) -> list[int]:
        """Token ids of text as a template wrote it."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the assistant answers next."""
        return self.ids_of(self.render(messages, True))

    def encode(self, examples: Sequence[Example], rules: EncodingRules) -> EncodedRows:
        """Every row as ids and mask. A row that the template refuses is reported, not raised."""
        rows: list[EncodedRow] = []
        problems: list[Problem] = []
        for batch in _batches(examples):
            tokenized = self.tokenize(batch, last_only=rules.mask_cot)
            for example, row in zip(batch, tokenized, strict=True):
                if isinstance(row, str):
                    rows.append(unrenderable(example))
                    problems.append(refused(example, row))
                else:
                    rows.append(mask_row(example, row, rules, self.bos_id))
        return EncodedRows(tuple(rows), tuple(problems))

    def tokenize(
        self,
        examples: Sequence[Example],
        *,
        last_only: bool,
    ) -> list[TokenRow | str]:
        """Every row as tokens with its answers, or only the last of them; or why the template refuses it."""
        with many_bounded():
            rendered = [self._rendered_or_reason(example, last_only) for example in examples]
        texts = [row.text for row in rendered if isinstance(row, RenderedRow)]
        tokens = iter(self._encoded(texts))
        return [token_row(row, next(tokens)) if isinstance(row, RenderedRow) else row for row in rendered]

    def sped_up(self) -> "ChatFormat":
        """With an encoder that takes a second to make, and pays for many rows; the tokens are the same."""
        from lib.data.chat.byte_pairs import BytePairs

        faster = copy(self)
        faster._byte_pairs = BytePairs.of(self.tokenizer)
        return faster

    def _encoded(self, texts: list[str]) -> list[TextTokens]:
        found = [self._byte_pairs.encode(text) if self._byte_pairs else None for text in texts]
        asked = [text for text, tokens in zip(texts, found, strict=True) if tokens is None]
        rest = iter(encode_texts(self.tokenizer, asked) if asked else ())
        return [next(rest) if tokens is None else tokens for tokens in found]

    def tokens_of(self, example: Example, rules: EncodingRules) -> tuple[RenderedRow, Encoding]:
        """One row's text and its tokens before truncation, for the preview. InputError when it is refused."""
        row = self._rendered_or_reason(example, rules.mask_cot)
        if isinstance(row, str):
            raise InputError([refused(example, row)])
        return row, self.tokenizer.encode(row.text, add_special_tokens=False)

    @cached_property
    def end_of_turn(self) -> str:
        """The token that closes an answer; "" when neither template nor tokenizer has one."""
        turn = self._probe_turn
        if turn is not None and turn[1].end > turn[1].closing:
            return turn[0][turn[1].closing : turn[1].end]
        return self.special_tokens.get("eos_token", "")

    @property
    def control_tokens(self) -> frozenset[str]:
        """Texts that the tokenizer turns into special tokens, wherever they stand."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        texts = {token.content for token in added if token.special and token.content.strip()}
        return frozenset(texts | {text for text in (self.special_tokens.get("eos_token"),) if text})

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids at which generation ends: end of turn and end of sequence."""
        texts = dict.fromkeys((self.end_of_turn, self.special_tokens.get("eos_token", "")))
        ids = (self.tokenizer.token_to_id(text) for text in texts if text)
        return tuple(token for token in ids if token is not None)

    @property
    def largest_id(self) -> int:
        """Of all tokens that it can write; the model's embedding needs a row for it."""
        ids: Iterable[int] = self.tokenizer.get_vocab(with_added_tokens=True).values()
        return max(ids, default=0)

    @property
    def bos_id(self) -> int | None:
        text = self.special_tokens.get("bos_token")
        return self.tokenizer.token_to_id(text) if text else None

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What a user should know about this template."""
        if self._probe_turn is None:
            return ()
        turn = self._probe_turn[1]
        notices = []
        if turn.end == turn.closing:
            eos = self.special_tokens.get("eos_token")
            consequence = (
                f"{eos} is appended to the last one" if eos else "and the tokenizer has no eos_token either"
            )
            notices.append(f"[WARNING] the chat template ends answers with no special token: {consequence}")
        if not self._facts.writes_generation_prompt:
            notices.append(
                "[WARNING] the chat template ignores add_generation_prompt: prompts end without a header"
            )
        return tuple(notices)

    @cached_property
    def _probe_turn(self) -> tuple[str, Turn] | None:
        try:
            text = self.render(_PROBE) if self._compiled else ""
            turns = find_turns(_PROBE, text, self.render, self._facts, last_only=True) if text else []
        except TEMPLATE_ERRORS:
            return None
        return (text, turns[0]) if turns else None

    def _rendered_or_reason(self, example: Example, last_only: bool) -> RenderedRow | str:
        try:
            return self._rendered(example, last_only)
        except TEMPLATE_ERRORS as error:
            return str(error)

    def _rendered(self, example: Example, last_only: bool) -> RenderedRow:
        eos = self.special_tokens.get("eos_token", "")
        if example.text is not None:
            bos = self.special_tokens["bos_token"] if self._starts_with_bos else ""
            text = bos + example.text
            return RenderedRow(text + eos, (Turn(len(bos), len(text), len(text + eos)),), plain=True)
        text = self.render(example.messages)
        turns = find_turns(example.messages, text, self.render, self._facts, last_only=last_only)
        last = turns[-1]
        if last.end == last.closing and eos:
            text = text[: last.closing] + eos
            turns[-1] = Turn(last.start, last.closing, len(text))
        return RenderedRow(text, tuple(turns), plain=False)

    @cached_property
    def _facts(self) -> TemplateFacts:
        longest_first = sorted(self.control_tokens, key=lambda text: (-len(text), text))
        pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        return TemplateFacts.of(pattern, _PROBE, self.render)


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    remaining = iter(examples)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
