"""Checks of what turns rows into tokens: template, tokenizer, length; and of the rows themselves. Free of
torch, but for tokenizers that only transformers reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lib.data.chat.chat_format import ChatFormat
from lib.files import read_json
from lib.lineage.contract import check_contract
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict, verdicts_of
from lib.settings import Problem, StageSettings

# Where configurations say how many positions a model knows; the first that is there counts.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
# Positions are a table, and nothing lies beyond its end. Others turn with the position, or fall off with it.
LEARNED_POSITIONS = frozenset({"gpt2", "opt", "gpt_neo", "gpt_bigcode", "biogpt", "xglm", "codegen", "ctrl"})


def rows(subject: Subject) -> Iterator[Verdict]:
    """What the plan found of the data sets that are on this machine."""
    planned = subject.planned
    if planned is None:
        return
    for notice in planned.notices:
        if notice.startswith("["):
            yield Verdict.warning("data", notice.partition("] ")[2])
    if planned.ledger and planned.ledger.encoded:
        counted, about = planned.ledger.encoded, "about " if planned.ledger.estimated else ""
        sets = len(planned.sources)
        yield Verdict.ok(
            "data",
            f"{sets} data set{'s' * (sets != 1)}, {about}{counted.rows:,} draws an epoch, "
            f"{about}{counted.supervised:,} of {counted.tokens:,} tokens learned",
        )


def base_chat(settings: StageSettings, base: Path) -> ChatFormat:
    """Tokenizer and template of the base. Where the tokenizer is no tokenizer.json, transformers is imported
    to read it. Raises InputError as a run does, also for a package that this needs."""
    chat = ChatFormat.load(base, settings.data.chat_template)
    if chat is not None:
        return chat
    from lib.data.chat.model_chat import chat_of
    from lib.model.base import load_tokenizer
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    return chat_of(load_tokenizer(settings.model), settings.data.chat_template)


def chat_template(subject: Subject) -> Iterable[Verdict]:
    """The template is there and is that of the stage below. Raises InputError for one that is not."""
    chat, settings = subject.chat, subject.settings
    if subject.base is None:
        return [Verdict.warning("chat template", "not tried: the tokenizer is not on this machine")]
    chat = chat or base_chat(settings, subject.base)
    problems, changes = check_contract(subject.stage, chat, runs_before=subject.runs_before)
    name = settings.data.chat_template or "the tokenizer's own"
    # Its remarks are among those of the data, where rows were read.
    notices = [*changes, *(chat.notices if subject.planned is None else ())]
    return verdicts_of("chat template", problems, notices, f"{name}")


def tokenizer(subject: Subject) -> Iterator[Verdict]:
    """Its end token, its padding, and whether it belongs to the model."""
    chat = subject.chat
    if chat is None:
        return
    if not chat.stop_ids:
        yield Verdict.failed("end token", _no_end(subject))
    else:
        numbers = ", ".join(map(str, chat.stop_ids))
        yield Verdict.ok("end token", f"{chat.end_of_turn!r} ends an answer (generation stops at {numbers})")
    pad = chat.special_tokens.get("pad_token")
    yield Verdict.ok(
        "padding",
        repr(pad) if pad else "no token of its own: the end token stands in, and is never learned there",
    )
    embedded = _config(subject.base).get("vocab_size")
    if isinstance(embedded, int) and chat.largest_id >= embedded:
        yield Verdict.warning(
            "tokenizer",
            f"it knows token {chat.largest_id:,}, the model's embedding has rows for ids below {embedded:,}",
            "use the tokenizer that belongs to this model: a row with such a token ends the run",
        )


def context_length(subject: Subject) -> Iterable[Verdict]:
    """The longest row against the positions that the model knows."""
    known = _positions(subject.base)
    if subject.base is None:
        return [Verdict.warning("context length", "not tried: the base is not on this machine")]
    if known is None:
        return [Verdict.ok("context length", "the model's configuration does not state one")]
    allowed, ledger = subject.settings.data.max_seq_len, subject.planned and subject.planned.ledger
    counted = ledger.encoded if ledger and not ledger.estimated else None
    longest = counted.longest if counted else allowed
    found = f"rows of {longest:,} tokens, SFT_MAX_SEQ_LEN={allowed}, {known:,} positions in the model"
    if longest <= known:
        return [Verdict.ok("context length", found)]
    problem = beyond_positions(subject.settings, subject.base, counted.longest) if counted else None
    if problem:
        return [Verdict.failed("context length", problem)]
    remedy = f"set SFT_MAX_SEQ_LEN={known}, unless the model's positions are stretched on purpose"
    return [Verdict.warning("context length", found, remedy)]


def beyond_positions(settings: StageSettings, base: Path | None, longest: int) -> Problem | None:
    """A longest row of so many tokens that lies beyond a model's table of positions."""
    known = _positions(base)
    if known is None or longest <= known or _config(base).get("model_type") not in LEARNED_POSITIONS:
        return None
    return Problem(
        where=settings.origins["SFT_MAX_SEQ_LEN"],
        key="SFT_MAX_SEQ_LEN",
        value=str(settings.data.max_seq_len),
        expected=f"at most {known}, the model's table of positions; the longest row has {longest}",
        remedy=f"set SFT_MAX_SEQ_LEN={known}",
    )


def _positions(base: Path | None) -> int | None:
    config = _config(base)
    return next((int(config[key]) for key in POSITIONS if isinstance(config.get(key), int)), None)


def _config(base: Path | None) -> dict[str, Any]:
    """config.json of the base; empty where it cannot be read, which whoever loads the model says."""
    try:
        content = read_json(base / "config.json") if base else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _no_end(subject: Subject) -> Problem:
    return Problem(
        where="tokenizer of the base model",
        key="SFT_CHAT_TEMPLATE",
        value="no end token: neither the template closes an answer with one, nor has the tokenizer any",
        expected="a token at which an answer ends; without one the model never learns to stop",
        remedy="set SFT_CHAT_TEMPLATE to a template that closes answers with a token of this tokenizer, or "
        'name one as "eos_token" in its tokenizer_config.json',
    )
