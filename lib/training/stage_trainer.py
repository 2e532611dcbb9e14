"""SFTTrainer whose evaluations also generate answers, and never change what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from lib.training.batches import LengthGroupedOrder
from lib.training.random_state import untouched_random_state

GENERATED = ("gen_", "heldout_")
Generation = Callable[[PreTrainedModel, int], dict[str, float]]
"""Model and step to metrics; called by all processes together."""


class StageTrainer(SFTTrainer):
    def __init__(self, *args: Any, generation: Generation | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.generation = generation

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        """The same order on every process, in every epoch and after resuming."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedOrder(step, lengths, self.args.data_seed)

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
