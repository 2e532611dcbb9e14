"""SFTTrainer that goes through the rows as planned, whose loss is that of the labelled tokens, and whose
evaluations also generate answers and never change what is trained."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, nan
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from lib.data.order.order import TrainingOrder
from lib.training.loss import LabelledLoss, TokenLosses
from lib.training.numerics.numbers_guard import NumbersGuard
from lib.training.numerics.unmeasured import EVALUATED
from lib.training.order_sampler import OrderSampler
from lib.training.random_state import untouched_random_state
from lib.training.resumable import ResumableTrainer

GENERATED = ("gen_", "heldout_")
Generation = Callable[[PreTrainedModel, int, int], dict[str, float]]
"""Model, step and which evaluation of the run it is (from 1) to metrics; called by all processes together."""


def _train_in_fp32(model: PreTrainedModel) -> None:
    """TRL rounds the adapter of a quantised model to bf16, where small updates would be lost."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class StageTrainer(ResumableTrainer):
    # compute_loss divides by the labelled tokens of the whole batch, whatever forward the model has.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        order: TrainingOrder,
        guard: NumbersGuard,
        generation: Generation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.rows = OrderSampler(order)
        self.guard = guard
        guard.watch(self)
        self.generation = generation
        _train_in_fp32(self.model)
        self.model_accepts_loss_kwargs = True
        self.labelled_loss = LabelledLoss(self.model)
        self.labelled_loss.through_forward()
        self._clear_sums()
        self._row_losses: list[torch.Tensor] = []
        """Summed over the tokens of each row of the evaluation that runs."""

    def _clear_sums(self) -> None:
        """Of training since the last log, or of this evaluation: summed loss, labelled tokens, correct ones;
        of training also, tokens without padding. Kept on the device: reading them would make it wait."""
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.args.device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Summed loss of the labelled tokens over `num_items_in_batch`: their number in all micro-batches of
        the optimizer step, on all processes. Without it (an evaluation) over their number in this batch."""
        found: TokenLosses = model(**inputs, token_losses=True)
        count = found.losses.numel() if num_items_in_batch is None else num_items_in_batch
        total = found.losses.sum()
        loss = total / torch.as_tensor(count).clamp(min=1)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over them, not summed
            self.guard.saw(loss, total, found.losses.numel())
        self._add_sums(found, inputs)
        return (loss, found) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **options: Any) -> Any:
        """The passes of one optimizer step."""
        self.guard.begin_step()
        return super().get_batch_samples(*args, **options)

    def _get_grad_norm(self, *args: Any, **options: Any) -> torch.Tensor | float | None:
        """The last that is done before the optimizer's step."""
        return self.guard.passed(super()._get_grad_norm(*args, **options))

    def _add_sums(self, found: TokenLosses, inputs: dict[str, Any]) -> None:
        by_row = found.sums_by_row(len(inputs["labels"]))
        if self.model.training:
            self._sums[:3] += by_row.sum(0)
            mask = inputs.get("attention_mask")
            self._sums[3] += inputs["input_ids"].numel() if mask is None else mask.sum()
        else:
            # Rows that only fill up the last batch of the processes are left out.
            gathered = self.accelerator.gather_for_metrics(by_row)
            self._sums[:3] += gathered.sum(0)
            self._row_losses.append(gathered[:, 0])

    def _token_metrics(self) -> dict[str, float]:
        """Of all processes since the last call; nothing where no token was trained on."""
        _, labelled, correct, tokens = self.accelerator.reduce(self._sums, "sum").tolist()
        self._clear_sums()
        self._total_train_tokens += int(tokens)
        metrics = {"mean_token_accuracy": correct / labelled} if labelled else {}
        return {**metrics, "num_tokens": self._total_train_tokens} if tokens else metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """The planned order; accelerate only shares it out among the processes."""
        return self.rows

    def _run_epoch(self, **call: Any) -> None:
        """accelerate does not reach the sampler when a loader skips batches and several processes share it:
        a run taken up in its second epoch would go through the rows of the first."""
        self.rows.set_epoch(call["epoch"])
        super()._run_epoch(**call)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The validation loss and the scores of generated answers.

        An evaluation data loader draws a seed from the global generator: without putting it back, dropout
        would depend on how often is evaluated.
        """
        with untouched_random_state():
            metrics: dict[str, float] = super().evaluate(*args, **options)
        return metrics

    def evaluation_loop(self, *args: Any, **options: Any) -> EvalLoopOutput:
        """The loss per labelled token, whatever the batches (transformers averages those of the batches). The
        scores join the loop's own metrics, so that the log, early stopping and the choice of the best
        checkpoint see them."""
        training, self._sums = self._sums, torch.zeros_like(self._sums)
        self._row_losses.clear()
        output = super().evaluation_loop(*args, **options)
        (loss, labelled, correct, _), self._sums = self._sums.tolist(), training
        if labelled:
            output.metrics["eval_loss"] = loss / labelled
            output.metrics["eval_mean_token_accuracy"] = correct / labelled
            self.guard.evaluated(loss / labelled, lambda: torch.cat(self._row_losses).tolist())
        if self.generation:
            model = self.accelerator.unwrap_model(self.model)
            earlier = sum(EVALUATED in entry for entry in self.state.log_history)
            output.metrics.update(self.generation(model, self.state.global_step, earlier + 1))
        self._name_best_metric(output.metrics)
        return output

    def _name_best_metric(self, metrics: dict[str, float]) -> None:
        """transformers looks for the metric under the prefix of its own evaluation, and ends where there is
        none: precision, say, of a model that has not called anything positive."""
        best = self.args.metric_for_best_model
        if not best:
            return
        if best not in metrics:
            self.guard.numbers.unmeasured(self.state.global_step, f"{best} says nothing of these answers")
        metrics[f"eval_{best.removeprefix('eval_')}"] = metrics.get(best, nan)

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """The log has each metric once, under its own name; while training with the tokens so far and the
        share of labels that were the most likely token."""
        if "loss" in logs or "train_loss" in logs:
            logs = {**self.guard.numbers.fair(logs), **self._token_metrics()}
        left_out = {f"eval_{name}" for name in logs if name.startswith(GENERATED)}
        # What is no number was named where it was found: it is no point of a curve.
        left_out |= {name for name, value in logs.items() if isinstance(value, float) and not isfinite(value)}
        super().log({name: value for name, value in logs.items() if name not in left_out}, *args, **options)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """A new best is saved at once: what was not saved cannot be gone back to. What is no number is never
        the best, and no measure for the next one."""
        best = self.args.metric_for_best_model
        if best and not isfinite(metrics[f"eval_{best.removeprefix('eval_')}"]):
            return False
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return is_best
