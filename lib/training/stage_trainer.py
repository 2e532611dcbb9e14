"""SFTTrainer that goes through the rows as planned, whose evaluations also generate answers and never change
what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from lib.data.order import TrainingOrder
from lib.training.order_sampler import OrderSampler
from lib.training.random_state import untouched_random_state

GENERATED = ("gen_", "heldout_")
Generation = Callable[[PreTrainedModel, int], dict[str, float]]
"""Model and step to metrics; called by all processes together."""


def _train_in_fp32(model: PreTrainedModel) -> None:
    """TRL rounds the adapter of a quantised model to bf16, where small updates would be lost."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class StageTrainer(SFTTrainer):
    def __init__(
        self, *args: Any, order: TrainingOrder, generation: Generation | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.order = order
        self.generation = generation
        _train_in_fp32(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """The planned order; accelerate only shares it out among the processes."""
        return OrderSampler(self.order)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The validation loss and the scores of generated answers.

        An evaluation data loader draws a seed from the global generator: without putting it back, dropout
        would depend on how often is evaluated.
        """
        with untouched_random_state():
            metrics: dict[str, float] = super().evaluate(*args, **options)
        return metrics

    def evaluation_loop(self, *args: Any, **options: Any) -> EvalLoopOutput:
        """The scores join the loop's own metrics, so that the log, early stopping and the choice of the best
        checkpoint see them."""
        output = super().evaluation_loop(*args, **options)
        if self.generation:
            model = self.accelerator.unwrap_model(self.model)
            output.metrics.update(self.generation(model, self.state.global_step))
        best = self.args.metric_for_best_model or ""
        if best in output.metrics:
            # transformers looks for the metric under the prefix of its own evaluation.
            output.metrics[f"eval_{best.removeprefix('eval_')}"] = output.metrics[best]
        return output

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """The log has each metric once, under its own name."""
        twice = {f"eval_{name}" for name in logs if name.startswith(GENERATED)}
        super().log({name: value for name, value in logs.items() if name not in twice}, *args, **options)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """A new best is saved at once: what was not saved cannot be gone back to."""
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return is_best
