"""A loaded model as one that answers conversations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import TEMPLATE_ERRORS, bundled_templates
from lib.data.chat.model_chat import chat_of
from lib.data.reading.rows import Message
from lib.evaluation.answers import Answer, Question
from lib.evaluation.decoding import Decoding, answer_batch, end_tokens, generating, quickest_threads
from lib.heartbeat import phase
from lib.inference.source import ModelSource
from lib.inference.wishes import Wishes
from lib.settings import InputError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True)
class Assistant:
    """`longest_prompt` tokens leave room for an answer in the model's context."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    decoding: Decoding
    longest_prompt: int

    def answer(
        self, questions: Sequence[Question], *, seed: int, streamer: BaseStreamer | None = None
    ) -> list[Answer]:
        """In their order; the same for the same questions and seed, on the same machine."""
        import torch

        torch.manual_seed(seed)
        return answer_batch(self.model, self.tokenizer, questions, self.decoding, streamer)


def say(*lines: str) -> None:
    """For people, on stderr: stdout has the answers alone."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def load_chat(source: ModelSource) -> tuple[PreTrainedTokenizerBase, ChatFormat]:
    """Tokenizer and chat template as in training. Raises InputError when there is no template."""
    from lib.model.base import load_tokenizer

    beside = source.tokenizer
    where = replace(source.base, base_model=str(beside), base_revision="") if beside else source.base
    tokenizer = load_tokenizer(where)
    chat = chat_of(tokenizer, source.template)
    if chat.template is None:
        raise InputError.of(
            where=where.base_model,
            key="chat template",
            value="none",
            expected="a template to write conversations with",
            remedy=f"name one with --chat-template: a jinja file, or {', '.join(bundled_templates())}",
        )
    return tokenizer, chat


def check_system_prompt(chat: ChatFormat, system: str) -> None:
    """Raises InputError when the template takes no system prompt."""
    try:
        chat.prompt_ids([*([Message("system", system)] if system else []), Message("user", "question")])
    except TEMPLATE_ERRORS as error:
        raise InputError.of(
            where="command line",
            key="--system" if system else "--chat-template",
            value=system,
            expected=f"what the chat template takes; it says: {error}",
            remedy="write it into the question instead" if system else "choose another template",
        ) from error


@contextmanager
def loaded(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, wishes: Wishes
) -> Iterator[Assistant]:
    """The model, ready to answer while the block lasts.

    Raises InputError when a part of it cannot be read, or does not fit the others.
    """
    import torch

    from lib.model.base import choose_compute
    from lib.model.stage_base import load_stage_base, obtain_stage_base

    compute = choose_compute(source.base)
    with phase("merge"):
        base = obtain_stage_base(
            source.base, source.earlier, source.merged_base, key=source.key, mode=source.mode
        )
    say(source.name, base.line(), compute.line(), *source.notices)
    with phase("load"):
        model, base = load_stage_base(base, source.base, compute, on_gpu=torch.cuda.is_available())
    say(*base.notices)
    if source.adapter:
        four_bits = source.base.quantization != "none"
        with phase("attach"):
            model = _with_adapter(model, source.adapter, merged=wishes.merged, four_bits=four_bits)
    context = _context(model)
    limit, notices = _answer_limit(wishes.max_new_tokens, source.habits.max_new_tokens, context)
    say(*notices)
    decoding = Decoding(end_tokens(chat, model), limit, wishes.sampling)
    with generating(model), quickest_threads(model), phase("answer"):
        yield Assistant(model, tokenizer, chat, decoding, context - limit)


def _with_adapter(
    model: PreTrainedModel, folder: Path, *, merged: bool, four_bits: bool
) -> PreTrainedModel | PeftModel:
    import torch

    from lib.model.adapter import load_adapter
    from lib.model.expert_lora.plug_in import use_split_expert_lora
    from lib.model.merged_weights import merged_for_good

    try:
        peft_model = load_adapter(model, folder)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])  # torch counts in the first line, and names a tensor in the second
        raise InputError.of(
            where=str(folder),
            key="adapter",
            value=type(error).__name__,
            expected=f"a PEFT adapter that fits its base ({reason})",
            remedy="name the model that it was trained on with --base MODEL",
        ) from error
    if merged and not four_bits:
        whole, obstacle = merged_for_good(peft_model)
        say(
            f"  [WARNING] adapter {folder} is computed beside the weights, which is slower: {obstacle}"
            if obstacle
            else f"  adapter {folder}, added to the weights"
        )
        return whole
    why = ": nothing is added to weights in four bits" if merged else ""
    say(f"  adapter {folder}, computed beside the weights{why}", *use_split_expert_lora(peft_model))
    return peft_model


def _context(model: Any) -> int:
    """Tokens of prompt and answer together that the model's positions reach to."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else sys.maxsize


def _answer_limit(wanted: int | None, habit: int, context: int) -> tuple[int, list[str]]:
    """New tokens of an answer, and notices. Unless asked for, an answer leaves half of the context to the
    prompt. Raises InputError when what is asked for leaves it nothing."""
    if wanted is not None and wanted >= context:
        raise InputError.of(
            where="command line",
            key="--max-new-tokens",
            value=str(wanted),
            expected=f"less than the model's context of {context} tokens, which the prompt shares",
            remedy="lower it",
        )
    if wanted is not None or habit <= context // 2:
        return wanted or habit, []
    return context // 2, [
        f"  answers end after {context // 2} tokens: the model's context has {context} (--max-new-tokens)"
    ]
