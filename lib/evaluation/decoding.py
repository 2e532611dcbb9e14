"""How a model answers one batch of prompts: which token comes next, where an answer ends, at what speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.evaluation.answers import Answer, Question
from lib.model.threads import threads

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.generation.streamers import BaseStreamer

    from lib.data.chat.chat_format import ChatFormat

# Parameters below which a CPU generates faster with one thread (docs/log.md).
SMALL_MODEL = 50_000_000


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. None: as the model's own generation_config.json says, where it does."""

    temperature: float = 0.0
    """0 is greedy: always the likeliest token."""
    top_p: float | None = None
    top_k: int | None = None
    """0 is no bound."""
    repetition_penalty: float | None = None


GREEDY = Sampling()


@dataclass(frozen=True)
class Decoding:
    """How answers are generated and where one ends."""

    end_token_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = GREEDY

    def config(self, pad: int) -> GenerationConfig:
        """For transformers, which fills in from the model's own what is None here."""
        from transformers import GenerationConfig

        chosen = self.sampling
        drawn = {"temperature": chosen.temperature, "top_p": chosen.top_p, "top_k": chosen.top_k}
        return GenerationConfig(
            do_sample=chosen.temperature > 0,
            **(drawn if chosen.temperature > 0 else {}),
            repetition_penalty=chosen.repetition_penalty,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.end_token_ids) or None,
            pad_token_id=pad,
            use_cache=True,
        )


def end_tokens(chat: ChatFormat, model: PreTrainedModel) -> tuple[int, ...]:
    """Token ids at which an answer ends: the template's end of turn, and where the model's own
    generation_config.json ends one. An exported model's names the same."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    listed = own if isinstance(own, list) else [own]
    return tuple(dict.fromkeys([*chat.stop_ids, *(token for token in listed if token is not None)]))


def answer_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    decoding: Decoding,
    streamer: BaseStreamer | None = None,
) -> list[Answer]:
    """The answers to `questions`, in their order. `streamer` sees the tokens of a single one as they come.

    Padding stands on the left, because an answer must follow its prompt directly.
    """
    import torch

    ends = decoding.end_token_ids
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    width = max(len(question.prompt_ids) for question in questions)
    rows = [[pad] * (width - len(q.prompt_ids)) + q.prompt_ids for q in questions]
    mask = [[0] * (width - len(q.prompt_ids)) + [1] * len(q.prompt_ids) for q in questions]
    output = model.generate(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=decoding.config(pad),
        streamer=streamer,
    )
    return [
        as_answer(question, generated, tokenizer, ends)
        for question, generated in zip(questions, output[:, width:].tolist(), strict=True)
    ]


def as_answer(
    question: Question,
    generated: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    end_token_ids: Sequence[int],
) -> Answer:
    """Cut at the first end token; what follows it is padding."""
    end = next((i for i, token in enumerate(generated) if token in end_token_ids), None)
    kept = generated if end is None else generated[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Answer(question, text, tokens=len(kept), stopped=end is not None)


@contextmanager
def generating(model: PreTrainedModel) -> Iterator[None]:
    """The model as it generates: evaluation mode, no gradients, cache on, the quickest experts. All of it is
    put back."""
    import torch

    training, use_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        with torch.no_grad(), _quickest_experts(model):
            yield
    finally:
        model.train(training)
        model.config.use_cache = use_cache


@contextmanager
def _quickest_experts(model: PreTrainedModel) -> Iterator[None]:
    """On the CPU a loop over the experts that are hit beats grouped products of few rows (docs/log.md). On a
    GPU transformers decodes faster by itself where it finds the implementation that is its own default.
    What is computed beside the experts keeps the implementation that computes it."""
    from lib.model.expert_lora.plug_in import IMPLEMENTATION, split_wrappers
    from lib.model.frozen_factors import all_beside

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = getattr(inner.config, "_experts_implementation", None)
    on_cpu = inner.device.type == "cpu"
    beside = any(not wrapper.merged for wrapper in split_wrappers(model))
    beside = beside or any(not factors.folded for *_, factors in all_beside(model))
    if before is None or beside or not (on_cpu or before == IMPLEMENTATION):
        yield
        return
    inner.set_experts_implementation("eager" if on_cpu else "grouped_mm")
    try:
        yield
    finally:
        inner.set_experts_implementation(before)


def quickest_threads(model: PreTrainedModel) -> AbstractContextManager[None]:
    """One token at a time through a small model is over sooner than a second thread is awake."""
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL
    return threads(1) if model.device.type == "cpu" and small else nullcontext()
