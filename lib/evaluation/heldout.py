"""Loss and answers of a model on held-out rows: what a stage is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.evaluation.decoding import end_tokens
from lib.evaluation.evaluation_set import EvaluationSet
from lib.evaluation.generation import GenerationLimits, generate_answers, row_losses, token_loss
from lib.evaluation.kept import kept_result
from lib.evaluation.scores import sample_table, score
from lib.files import write_json
from lib.heartbeat import phase
from lib.training.numerics.unmeasured import Unmeasured
from lib.training.processes.together import ended_together

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lib.data.chat.chat_format import ChatFormat
    from lib.settings import StageSettings
    from lib.training.processes.process_group import Processes


@dataclass(frozen=True)
class Evaluation:
    """`metrics` in MLflow's naming, `intervals` their 95 % confidence intervals over the rows; `samples` are
    the rows with reference, answer and verdict."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    samples: list[dict[str, Any]] = field(repr=False)
    seconds: float
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the stage record keeps; the samples are too many for it."""
        return {"metrics": self.metrics, "intervals": self.intervals, "seconds": round(self.seconds, 2)}


NOTHING = Evaluation({}, {}, [], 0.0)


class Evaluator:
    """Asks a model the questions of an evaluation set. Every process calls it together and gets the same."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatFormat,
        settings: StageSettings,
        processes: Processes | None = None,
        *,
        run: Mapping[str, str] | None = None,
    ) -> None:
        """`run` is what decides the weights that are evaluated before and after training: with it, finished
        evaluations of an unfinished stage are kept."""
        self.run = run
        self.tokenizer = tokenizer
        self.chat = chat
        self.options = settings.evaluation
        self.on_nan = settings.training.on_nan
        self.folder = settings.stage_dir
        self.processes = processes

    @phase("evaluate")
    def __call__(self, model: PreTrainedModel, rows: EvaluationSet) -> Evaluation:
        """Scores of `model` on `rows`; NOTHING when there are none."""
        if not rows.examples:
            return NOTHING
        encoded = rows.encoded(self.chat)
        losses = row_losses(model, [(row.input_ids, row.targets()) for row in encoded], self.processes)
        loss, notices = self._judged(rows.stage, losses, [row.row_id for row in encoded])
        limits = GenerationLimits(
            end_token_ids=end_tokens(self.chat, model),
            batch_size=self.options.batch_size,
            max_new_tokens=rows.max_new_tokens,
            token_budget=self.options.token_budget,
            time_budget=self.options.time_budget,
        )
        answered = generate_answers(model, self.tokenizer, rows.questions(self.chat), limits, self.processes)
        scores = score(answered.answers, rows.task, rows.markers, rows.style)
        return Evaluation(
            {**loss, **scores.metrics},
            scores.intervals,
            sample_table(answered.answers, scores),
            answered.seconds,
            notices,
        )

    def _judged(
        self, stage: int, losses: Sequence[tuple[float, int]], names: Sequence[str]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """The metric, and what is to be said of one that is no number. Under SFT_ON_NAN=stop all processes
        raise together, to end the run."""
        mean = token_loss(losses)
        if mean is None:
            return {}, ()
        of_rows = [(name, loss) for name, (loss, _) in zip(names, losses, strict=True)]
        wrong = Unmeasured.of(f"evaluation set of stage {stage}", "heldout_loss", mean, of_rows)
        if wrong is None:
            return {"heldout_loss": mean}, ()
        main = self.processes is None or self.processes.is_main
        if self.on_nan == "stop":
            raise ended_together(wrong.problem(), main=main)
        if main:
            print(wrong.line, flush=True)
        return {}, (wrong.line,)

    def before(self, model: PreTrainedModel, rows: EvaluationSet) -> Evaluation:
        """The same before training, where SFT_GEN_EVAL_BEFORE asks for it: a new adapter changes nothing
        yet, so these are the scores of the stage's base."""
        return self.once("before", model, rows) if self.options.before else NOTHING

    def once(self, when: str, model: PreTrainedModel, rows: EvaluationSet) -> Evaluation:
        """The same, and not again when this run is taken up later."""
        if self.run is None:
            return self(model, rows)
        budgets = [self.options.token_budget, self.options.time_budget]
        key = [when, dict(self.run), asdict(rows), budgets]
        main = self.processes is None or self.processes.is_main
        found = kept_result(self.folder, key, lambda: asdict(self(model, rows)), writes=main)
        found["intervals"] = {name: (low, high) for name, (low, high) in found["intervals"].items()}
        found["notices"] = tuple(found.get("notices", ()))
        return Evaluation(**found)

    def while_training(self, rows: EvaluationSet) -> Callable[[PreTrainedModel, int, int], dict[str, float]]:
        """For the trainer: called at every evaluation with model, step and number of the evaluation, it
        answers with metrics and leaves `gen_metrics_step{S}.json`. Only every SFT_GEN_EVAL_EVERY-th
        generates.
        """

        def evaluate(model: PreTrainedModel, step: int, number: int) -> dict[str, float]:
            if not rows.examples or not self.options.every or number % self.options.every:
                return {}
            evaluation = self(model, rows)
            if self.processes is None or self.processes.is_main:
                keep_step(self.folder, step, evaluation)
            return evaluation.metrics

        return evaluate


def keep_step(folder: Path, step: int, evaluation: Evaluation) -> None:
    """`gen_metrics_step{S}.json` of an evaluation in the middle of training."""
    content = {"step": step, **evaluation.to_json(), "samples": evaluation.samples}
    write_json(folder / f"gen_metrics_step{step}.json", content)
