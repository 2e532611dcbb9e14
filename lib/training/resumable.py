"""SFTTrainer that can be stopped after any step and goes on as if it had not been."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from trl import SFTTrainer

from lib.heartbeat import phase
from lib.training.checkpoints.checkpoints import Checkpoints
from lib.training.checkpoints.deepspeed_files import loaded_without_pickle
from lib.training.checkpoints.session import SESSION, STATE, Session, read_session
from lib.training.machines.alone import Alone
from lib.training.processes.signals import Interrupted, StopSignals
from lib.training.random_state import untouched_random_state
from lib.training.sizing.peak_memory import peak_memory_bytes


class ResumableTrainer(SFTTrainer):
    """Its checkpoints hold what transformers leaves out: what was summed since the last log, time, tokens,
    and an evaluation that was cut short."""

    _sums: torch.Tensor
    """Of StageTrainer: what this process has counted since the last log."""

    def __init__(
        self,
        *args: Any,
        checkpoints: Checkpoints,
        limit: int,
        signals: StopSignals,
        machines: Alone,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.checkpoints, self.limit, self.signals = checkpoints, limit, signals
        self.machines = machines
        self.session = Session()
        """Up to the checkpoint that this run goes on from."""
        self._from: Path | None = None
        self._stopped_by = 0
        self._before_evaluation: dict[str, str] | None = None
        self._began = time.monotonic()

    def go_on_from(self, step: int | None) -> None:
        """Train from the checkpoint of `step`, or from the beginning."""
        if step is not None:
            self._from = self.checkpoints.at(step)
            self.session = read_session(self._from)
        self._began = time.monotonic()
        self.add_callback(_TakingUp(self))  # last: the others have begun when it evaluates
        with loaded_without_pickle():
            self.train(resume_from_checkpoint=str(self._from) if self._from else None)

    @property
    def seconds(self) -> float:
        """Trained so far, over all sessions."""
        return self.session.seconds + time.monotonic() - self._began

    # ---- Going on

    def take_up(self) -> None:
        """What transformers sets to zero when it begins, set to what it was; then what was left undone."""
        self.state.compute_steps(self.args, self.state.max_steps)  # SFT_LOGGING_STEPS may have changed
        if self._from is None:
            return
        self._restore_callbacks()
        session, rank = self.session, self.args.process_index
        self._initial_global_step = 0
        self._total_loss_scalar, self._globalstep_last_logged = session.loss, session.logged_step
        self._tr_loss.fill_(session.unlogged_loss[rank])
        self._sums.copy_(torch.tensor(session.unlogged_sums[rank]))
        self._total_train_tokens = session.tokens
        if session.evaluation_due:
            self._load_rng_state(str(self._from))
            self.control.should_evaluate = self.control.should_save = True
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, time.time()
            )
            self.session = replace(session, over=session.over or self.control.should_training_stop)

    def _restore_callbacks(self) -> None:
        """How long early stopping has waited. transformers would put new objects in the place of these."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                kept = self.state.stateful_callbacks.get(type(callback).__name__, {})
                for name, value in kept.get("attributes", {}).items():
                    setattr(callback, name, value)

    def _run_epoch(self, **call: Any) -> None:
        """Not a step more when all are done: transformers would take one before it looks."""
        if self.session.over:
            self.control.should_training_stop = True
            return
        with self.signals.at_step_boundaries():
            super()._run_epoch(**call)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        return super()._finalize_training(trial, num_train_samples, start_time - self.session.seconds)

    def _load_best_model(self) -> None:
        self.checkpoints.check(self.state.best_global_step)
        super()._load_best_model()

    # ---- Stopping

    def _maybe_log_save_evaluate(self, *call: Any, **options: Any) -> None:
        """After each step. When a signal has come to any process, all save and stop together."""
        self._stopped_by = self._signal_of_anyone()
        if self._stopped_by:
            self.control.should_save = True
        super()._maybe_log_save_evaluate(*call, **options)
        if self._stopped_by:
            self._stop()

    def _signal_of_anyone(self) -> int:
        if self.args.world_size == 1:
            return self.signals.received
        number = torch.tensor(self.signals.received, device=self.args.device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number.item())

    def _stop(self) -> None:
        step = self.state.global_step
        said = f"interrupted: checkpoint saved at step {step}, the same command goes on from there"
        raise Interrupted(self._stopped_by, said if self.args.should_save else "")

    def _evaluate(self, *call: Any, **options: Any) -> dict[str, float]:
        """An evaluation may take long: a signal that has come leaves it to the next session. One that comes
        while it runs ends it; a process that is alone saves first what was before it."""
        if self._stopped_by:
            self._leave_evaluation(self._description(evaluation_due=True))
        alone, sums = self.args.world_size == 1, self._sums
        before = self._description(evaluation_due=True) if alone else {}
        try:
            with untouched_random_state(), self.signals.at_once():
                return super()._evaluate(*call, **options)
        except Interrupted as stop:
            if alone:
                self._stopped_by, self._sums = stop.number, sums
                self._leave_evaluation(before)
            raise

    def _leave_evaluation(self, before: dict[str, str]) -> None:
        self._before_evaluation = before
        self._save_checkpoint(self.model, None)
        self._stop()

    # ---- Saving

    @phase("save")
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As transformers does it, but into a folder that becomes the checkpoint when everything is in it."""
        described = self._before_evaluation or self._description()
        step = self.state.global_step
        with self.checkpoints.writing(step, self.accelerator, self.machines) as folder:
            self.save_model(str(folder), _internal_call=True)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            if self.args.should_save:
                (folder / TRAINING_ARGS_NAME).unlink()  # a pickle, and nobody reads it
                for name, text in described.items():
                    (folder / name).write_text(text, encoding="utf-8")
        if self.machines.keeps_files:
            self._rotate()

    def _rotate(self) -> None:
        metric = self.args.metric_for_best_model or "eval_loss"
        self.checkpoints.rotate(self.state.log_history, metric, self.limit, self.state.global_step)

    def _description(self, *, evaluation_due: bool = False) -> dict[str, str]:
        """File names to what the run knows of itself. Called by all processes together."""
        self.store_flos()
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        self.state.best_model_checkpoint = str(self.checkpoints.at(best)) if best else None
        for part in (*self.callback_handler.callbacks, self.control):
            if isinstance(part, ExportableState):
                self.state.stateful_callbacks[type(part).__name__] = part.state()
        state = json.dumps(asdict(self.state), indent=2, sort_keys=True) + "\n"
        return {STATE: state, SESSION: self._session_so_far(evaluation_due).encoded()}

    def _session_so_far(self, evaluation_due: bool) -> Session:
        mine = [(float(self._tr_loss), tuple(self._sums.tolist()), peak_memory_bytes())]
        losses, sums, peaks = zip(*gather_object(mine), strict=True)
        return Session(
            seconds=self.seconds,
            tokens=self._total_train_tokens,
            peak_memory_bytes=max(self.session.peak_memory_bytes, *peaks),
            loss=self._total_loss_scalar,
            logged_step=self._globalstep_last_logged,
            unlogged_loss=losses,
            unlogged_sums=sums,
            evaluation_due=evaluation_due,
            over=self.control.should_training_stop,
        )


class _TakingUp(TrainerCallback):
    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.take_up()
