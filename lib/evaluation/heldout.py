"""Loss and answers of a model on held-out rows: what a stage is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lib.evaluation.answers import Question
from lib.evaluation.generation import choose, generate_answers, token_loss
from lib.evaluation.scores import guess_task, sample_table, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lib.data.chat import ChatFormat
    from lib.data.rows import Example
    from lib.settings import StageSettings


@dataclass(frozen=True)
class Evaluation:
    """`metrics` in MLflow's naming; `samples` are the rows with reference and answer."""

    metrics: dict[str, float]
    samples: list[dict[str, Any]] = field(repr=False)
    seconds: float

    def line(self) -> str:
        whole = {name: value for name, value in self.metrics.items() if "/" not in name}
        shown = [f"{name} {value:.3f}" for name, value in whole.items() if name != "gen_samples"]
        return "  ".join(shown) if shown else "nothing to evaluate"


NOTHING = Evaluation({}, [], 0.0)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    examples: Sequence[Example],
    settings: StageSettings,
) -> Evaluation:
    """Score `model` on at most SFT_GEN_EVAL_SAMPLES of `examples` (plain texts are left out)."""
    from lib.data.masks import EncodingRules

    options = settings.evaluation
    conversations = [example for example in examples if example.messages]
    chosen = choose(conversations, samples=options.samples, seed=options.seed)
    if not chosen:
        return NOTHING
    # Whole answers, whatever the stage's own mask: losses of different stages stay comparable.
    rules = replace(EncodingRules.of(settings.data), mask_cot=False)
    encoded = chat.encode(chosen, rules).rows
    loss = token_loss(model, [(row.input_ids, row.targets()) for row in encoded if row.usable])
    questions = [as_question(chat, example, settings.data.max_seq_len) for example in chosen]
    answers = generate_answers(
        model,
        tokenizer,
        questions,
        end_token_ids=chat.stop_ids,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
    )
    scores = score(answers.answers, guess_task(questions), settings.data.output_markers)
    metrics = {"heldout_loss": loss, **scores.metrics}
    return Evaluation(metrics, sample_table(answers.answers, scores), answers.seconds)


def evaluate_before(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    examples: Sequence[Example],
    settings: StageSettings,
) -> Evaluation:
    """The same before training, where SFT_GEN_EVAL_BEFORE asks for it: a new adapter changes nothing yet,
    so these are the scores of the stage's base."""
    return evaluate(model, tokenizer, chat, examples, settings) if settings.evaluation.before else NOTHING


def as_question(chat: ChatFormat, example: Example, longest: int) -> Question:
    """The prompt up to the last answer, cut from the left to `longest` tokens, and that answer."""
    return Question(
        row_id=example.row_id,
        prompt_ids=chat.prompt_ids(example.messages[:-1])[-longest:],
        reference=example.messages[-1].content,
        labels={label.field: label.value for label in example.labels},
        prompt=chat.render(example.messages[:-1], True),
    )
