"""What is scored at the end of a stage: its own evaluation set, and those of the stages before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib.evaluation.evaluation_set import EvaluationSet
from lib.evaluation.heldout import NOTHING, Evaluation, Evaluator

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class EarlierStage:
    """An earlier stage's evaluation set, and what that stage scored on it when it was done."""

    rows: EvaluationSet
    score: float | None
    """Its headline metric; None where it was not measured."""


@dataclass(frozen=True)
class Retained:
    """What a model still scores on an earlier stage's evaluation set."""

    stage: int
    task: str
    headline: str
    earlier: float | None
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        now = self.evaluation.metrics.get(self.headline)
        return {
            "stage": self.stage,
            "task": self.task,
            "headline": self.headline,
            "earlier": self.earlier,
            "now": now,
            "interval": self.evaluation.intervals.get(self.headline),
            **self.evaluation.to_json(),
        }


@dataclass(frozen=True)
class StageEvaluation:
    """A finished stage's scores. `before` is the base that it was trained on; NOTHING when not asked for."""

    own: EvaluationSet
    before: Evaluation
    after: Evaluation
    retained: tuple[Retained, ...]

    def to_json(self) -> dict[str, Any]:
        """The `evaluation` of a stage record."""
        return {
            "task": self.own.task,
            "headline": self.own.headline,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "retention": [entry.to_json() for entry in self.retained],
        }

    @property
    def notices(self) -> tuple[str, ...]:
        evaluations = (self.before, self.after, *(entry.evaluation for entry in self.retained))
        return tuple(dict.fromkeys(notice for each in evaluations for notice in each.notices))

    def samples(self) -> dict[str, Any]:
        """For the metrics file: every answer, with what its scores were computed from."""
        return {
            "samples": self.after.samples,
            "samples_before": self.before.samples,
            "samples_retention": {str(entry.stage): entry.evaluation.samples for entry in self.retained},
        }


def evaluate_stage(
    evaluator: Evaluator,
    model: PreTrainedModel,
    own: EvaluationSet,
    earlier: Sequence[EarlierStage],
    before: Evaluation = NOTHING,
) -> StageEvaluation:
    """Score the trained `model` on its own set and on those of earlier stages."""
    return StageEvaluation(
        own,
        before,
        evaluator.once("after", model, own),
        tuple(
            Retained(
                stage.rows.stage,
                stage.rows.task,
                stage.rows.headline,
                stage.score,
                evaluator.once("after", model, stage.rows),
            )
            for stage in earlier
        ),
    )
