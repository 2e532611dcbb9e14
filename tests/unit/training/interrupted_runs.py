"""Training of a tiny model in this process that is stopped and taken up again."""

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import TrainerCallback

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import rows_alone
from lib.model.adapter import attach_lora
from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
from lib.model.targets import find_targets
from lib.settings import StageSettings, load_stage
from lib.training.batches import choose_batch_form
from lib.training.checkpoints.checkpoints import Checkpoints
from lib.training.processes.process_group import Processes
from lib.training.processes.signals import Interrupted
from lib.training.sizing.world import World
from lib.training.trainer import FitResult, fit

LABELLED = (1, 9, 2, 1, 7, 3, 1, 8, 4, 2, 5, 1, 6)
"""Labelled tokens of the rows: 13 of them in batches of one, two a step, are 7 steps an epoch."""
KEYS = {
    "SFT_EPOCHS": 2, "SFT_PER_DEVICE_TRAIN_BS": 1, "SFT_GRAD_ACCUM": 2, "SFT_LORA_DROPOUT": 0.2,
    "SFT_LR": "2e-2", "SFT_LOGGING_STEPS": 3, "SFT_EVAL_STEPS": 4, "SFT_SAVE_STEPS": 4, "SFT_LORA_R": 4,
    "SFT_PER_DEVICE_EVAL_BS": 1, "SFT_NEFTUNE_NOISE_ALPHA": 1,
}  # fmt: skip
OF_TIME = ("runtime", "per_second")


def row(number: int, labelled: int) -> EncodedRow:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(3, 60, (labelled + 3 + number,), generator=generator).tolist()
    mask = [False] * (len(ids) - labelled) + [True] * labelled
    return EncodedRow(f"s#{number}", "s", (), "ok", ids, mask, answer_tokens=labelled)


ROWS = tuple(row(number, labelled) for number, labelled in enumerate(LABELLED))


class SignalAt(TrainerCallback):
    """SIGTERM as it would be handled, `when` something happens at a step."""

    def __init__(self, step: int, when: str) -> None:
        self.step, self.when, self.processes = step, when, None
        self.sent = False

    def _at(self, when: str, step: int) -> None:
        if (when, step) == (self.when, self.step) and not self.sent:
            self.sent = True
            signals = self.processes.signals  # type: ignore[attr-defined]
            signals._handle(signal.SIGTERM, None)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._at("within", state.global_step + 1)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._at("step", state.global_step + 1)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._at("evaluation", state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "eval_loss" in logs:
            self._at("evaluated", state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._at("save", state.global_step)


@dataclass
class Ended:
    result: FitResult
    weights: str

    @property
    def history(self) -> list[dict[str, Any]]:
        """Without what a clock says."""
        return [
            {name: value for name, value in entry.items() if not any(part in name for part in OF_TIME)}
            for entry in self.result.history
        ]


class Trained:
    """One stage of a tiny model, trained in as many sessions as it takes."""

    def __init__(self, base: Path, settings: StageSettings, rows: Sequence[EncodedRow] = ROWS) -> None:
        self.base, self.settings, self.rows = base, settings, rows
        self.checkpoints = Checkpoints(settings.stage_dir, {"settings": "these"})
        self.notices: list[str] = []

    def session(self, *callbacks: Any) -> Ended:
        """Until its end. Raises Interrupted when one of the callbacks sends a signal."""
        settings = self.settings
        base = StageBase(str(self.base), "", str(self.base), merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
        form = choose_batch_form(model, self.rows, packing=False)
        targets = find_targets(model, settings.lora.target_modules)
        peft_model, _ = attach_lora(model, targets, settings.lora, seed=1)
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=True)
        for callback in callbacks:
            callback.processes = processes
        order, packs = TrainingOrder(len(self.rows), settings.seed), rows_alone(len(self.rows))
        data: Any = SimpleNamespace(train=self.rows, packs=packs, order=order)
        newest, notices = self.checkpoints.newest_whole(goes_back=processes.arguments.load_best_model_at_end)
        self.notices += notices
        result = fit(
            peft_model, load_tokenizer(settings.model), data, self.rows[:3], settings, processes, form,
            callbacks=callbacks, checkpoints=self.checkpoints, go_on_from=newest.step if newest else None,
        )  # fmt: skip
        return Ended(result, weights_of(peft_model))

    def until_done(self, *stops: Any) -> Ended:
        """A session for every stop, then one to the end."""
        for stop in stops:
            try:
                self.session(stop)
            except Interrupted:
                continue
            raise AssertionError(f"not stopped at step {stop.step} ({stop.when})")
        return self.session()


def weights_of(model: Any) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def begun(base: Path, folder: Path, **keys: Any) -> Trained:
    """A stage of the `base` in `folder`, of which nothing has run."""
    values = {
        "SFT_BASE_MODEL": base, "SFT_OUT_LORA_DIR": folder / "lora", "SFT_DATASET_ID": "owner/set",
        **KEYS, **keys,
    }  # fmt: skip
    (folder / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
    return Trained(base, load_stage(folder, 1, environ={}))
