"""Assembles TRL's SFTTrainer from the stage's settings and runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lib.heartbeat import HEART, phase
from lib.settings import StageSettings
from lib.training.checkpoints.checkpoints import Checkpoints
from lib.training.numerics.unmeasured import EVALUATED
from lib.training.phase_times import rounded
from lib.training.sizing.peak_memory import peak_memory_bytes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from lib.data.chat.encoded import EncodedRow
    from lib.data.prepare import PreparedData
    from lib.training.batches import BatchForm
    from lib.training.processes.process_group import Processes
    from lib.training.stage_trainer import Generation, StageTrainer


@dataclass(frozen=True)
class FitResult:
    """What a training run did. `history` is the trainer's own log, one dict per logged step."""

    steps: int
    epochs: float
    tokens: int
    seconds: float
    """Over all sessions of a run that was interrupted."""
    final_eval: dict[str, float]
    best_step: int | None
    kept_step: int
    """The step whose weights `model` holds now."""
    best_metric: float | None
    peak_memory_bytes: int
    """Of the process that took most."""
    history: list[dict[str, float]] = field(repr=False)
    notices: tuple[str, ...] = ()
    """Steps that went wrong, and adapters without a gradient."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Of rank 0 in the session that ended the training."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: PreparedData,
    validation: Sequence[EncodedRow],
    settings: StageSettings,
    processes: Processes,
    form: BatchForm,
    *,
    callbacks: Sequence[TrainerCallback],
    generation: Generation | None = None,
    checkpoints: Checkpoints | None = None,
    go_on_from: int | None = None,
) -> FitResult:
    """Train the adapter of `model` in place; afterwards it holds the best evaluated weights, if any
    evaluation took place, else the last ones.

    `validation` are the rows of eval_loss; `generation` is called at every evaluation; `go_on_from` is the
    step of one of the `checkpoints`. Raises Interrupted when a signal has stopped it: a checkpoint is saved.
    """
    trainer = build_trainer(
        model, tokenizer, data, validation, settings, processes, form, callbacks, generation, checkpoints
    )
    with phase("training"):
        trainer.go_on_from(go_on_from)
    seconds, state = trainer.seconds, trainer.state
    result = FitResult(
        steps=state.global_step,
        epochs=round(state.epoch or 0.0, 4),
        tokens=_tokens_trained(state.log_history),
        seconds=seconds,
        final_eval=_final_eval(trainer) if validation else {},
        best_step=state.best_global_step,
        kept_step=_kept_step(trainer),
        best_metric=state.best_metric,
        peak_memory_bytes=max(trainer.session.peak_memory_bytes, *processes.gather([peak_memory_bytes()])),
        history=state.log_history,
        notices=trainer.guard.notices(state.global_step),
        phase_seconds=rounded(HEART.seconds),
    )
    _let_go(trainer)
    return result


def build_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: PreparedData,
    validation: Sequence[EncodedRow],
    settings: StageSettings,
    processes: Processes,
    form: BatchForm,
    callbacks: Sequence[TrainerCallback],
    generation: Generation | None,
    checkpoints: Checkpoints | None = None,
) -> StageTrainer:
    """The trainer on rows that are tokenised and masked already, gone through in this order; TRL prepares
    nothing."""
    from transformers import PrinterCallback

    from lib.training.numerics.bad_batches import BAD_BATCHES, BadBatches
    from lib.training.numerics.numbers import Numbers
    from lib.training.numerics.numbers_guard import NumbersGuard
    from lib.training.progress import ProgressCallback
    from lib.training.row_tables import training_dataset, validation_dataset
    from lib.training.stage_trainer import StageTrainer

    bad_batches = BadBatches(settings.stage_dir / BAD_BATCHES, data, validation)
    trainer = StageTrainer(
        model=model,
        args=processes.arguments,
        train_dataset=training_dataset(data.train, data.packs),
        eval_dataset=validation_dataset(validation) if validation else None,
        data_collator=form.collator(tokenizer),
        order=data.order,
        guard=NumbersGuard(Numbers(settings.training), bad_batches),
        generation=generation,
        checkpoints=checkpoints or Checkpoints(settings.stage_dir, {}),
        limit=settings.training.save_total_limit,
        signals=processes.signals,
        machines=processes.machines,
        processing_class=tokenizer,
        callbacks=_callbacks(model, callbacks, settings, evaluates=bool(validation)),
    )
    trainer.add_callback(ProgressCallback(lambda: trainer.session.seconds))
    trainer.remove_callback(PrinterCallback)
    processes.say(*trainer.labelled_loss.notices)
    return trainer


def _callbacks(
    model: PeftModel, callbacks: Sequence[TrainerCallback], settings: StageSettings, *, evaluates: bool
) -> list[TrainerCallback]:
    """Those given, between the ones that act on the weights' inputs and those that look at each step."""
    from transformers import EarlyStoppingCallback

    from lib.training.embedding_noise import EmbeddingNoise
    from lib.training.first_step import Beats, FirstStep
    from lib.training.processes.waiting import BoundWaiting

    alpha = settings.training.neftune_noise_alpha
    noise = [EmbeddingNoise(alpha)] if alpha else []
    patience = settings.training.early_stopping_patience
    stopping = [EarlyStoppingCallback(patience)] if patience and evaluates else []
    return [*noise, *callbacks, *stopping, FirstStep(model), Beats(), BoundWaiting()]


def _let_go(trainer: StageTrainer) -> None:
    """DeepSpeed's hooks hold the model by way of C++, where Python's garbage collector does not look: that of
    the next stage would come beside it."""
    if trainer.deepspeed is not None:
        trainer.deepspeed.destroy()


def _final_eval(trainer: StageTrainer) -> dict[str, float]:
    """Validation metrics of the weights that are kept; evaluated once more only if they never were."""
    kept = _kept_step(trainer)
    entries = [e for e in trainer.state.log_history if EVALUATED in e and e["step"] == kept]
    metrics = entries[-1] if entries else trainer.evaluate()
    return {n: v for n, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}


def _kept_step(trainer: StageTrainer) -> int:
    state = trainer.state
    best = state.best_global_step if trainer.args.load_best_model_at_end else None
    return int(best or state.global_step)


def _tokens_trained(history: Sequence[dict[str, float]]) -> int:
    return int(max((entry.get("num_tokens", 0) for entry in history), default=0))
