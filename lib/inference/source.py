"""Which model answers, and how it was taught to be asked. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lib.data.chat.chat_template import compile_template, find_template
from lib.lineage.curriculum import survey, survey_one, with_base
from lib.lineage.fingerprint import (
    adapter_fingerprint,
    base_fingerprint,
    template_fingerprint,
    tokenizer_fingerprint,
)
from lib.lineage.finished import other_than_trained, untouched_record
from lib.lineage.record import StageRecord
from lib.model.base_files import obtain_base_folder
from lib.model.quantization import loaded_as
from lib.planning.packages import FOUR_BITS, missing_package
from lib.settings import InputError, ModelSettings, StageSettings, TrainingSettings, list_stages
from lib.settings.schema.data import MARKERS
from lib.settings.schema.model import Quantization


@dataclass(frozen=True)
class Habits:
    """How the model is asked where the command line does not say, and how its answers are judged."""

    max_new_tokens: int = 1024
    batch_size: int = 16
    task: str = "auto"
    style: str = ""
    markers: tuple[str, ...] = tuple(MARKERS.split(","))
    stall_seconds: float = TrainingSettings().stall_seconds
    stall_stops: bool = False


@dataclass(frozen=True)
class ModelSource:
    """A base, the adapters merged into it, and at most one adapter on top.

    `base` is untouched; with `earlier` (oldest first) merged into it it lies or is built at `merged_base`,
    under the content key `key`.
    """

    name: str
    base: ModelSettings
    adapter: Path | None = None
    earlier: tuple[Path, ...] = ()
    merged_base: Path = Path()
    key: str = ""
    mode: Literal["merge", "stack"] = "merge"
    """Whether `earlier` go into the weights of the base or stay beside them, as in training."""
    tokenizer: Path | None = None
    """Folder of the tokenizer where it is not the base's own."""
    template: str = ""
    """Name or file of the chat template; empty: the tokenizer's own."""
    habits: Habits = Habits()
    notices: tuple[str, ...] = ()

    def asked_with(
        self,
        template: str = "",
        dtype: Literal["auto", "bf16", "fp32"] | None = None,
        quantization: Quantization | None = None,
    ) -> ModelSource:
        """With another chat template, precision or quantisation, where given.

        Raises InputError for a bad template, and for quantised weights that earlier stages stand beside.
        """
        if template:
            with said_of("--chat-template"):
                compile_template(find_template(template))
        base = replace(self.base, dtype=dtype or self.base.dtype)
        base = replace(base, quantization=quantization or base.quantization)
        asked = replace(self, base=base, template=template or self.template)
        if base.quantization != "none":
            asked._check_four_bits()
        return asked

    def _check_four_bits(self) -> None:
        value = self.base.quantization
        if self.mode == "stack" and self.earlier:
            raise InputError.of(
                where="command line",
                key="--quantization",
                value=value,
                expected="none: the earlier stages stand beside unquantised weights (SFT_MERGE_MODE=stack)",
                remedy="leave it out, or export the stage and load that model in four bits",
            )
        missing = missing_package(FOUR_BITS, self.name, value)
        if missing:
            raise InputError(missing)

    def identity(self) -> dict[str, str]:
        """What decides its answers, by content."""
        base = base_fingerprint(self.base, thorough=False)
        folder = self.tokenizer or obtain_base_folder(self.base)
        return {
            "base": (self.key or base.outline or base.name)[:16] + loaded_as(self.base.quantization),
            "adapter": adapter_fingerprint(self.adapter)[:16] if self.adapter else "",
            "tokenizer": tokenizer_fingerprint(folder)[:16],
            "chat template": template_fingerprint(folder, self.template)[:16],
        }


@contextmanager
def said_of(option: str) -> Iterator[None]:
    """Errors about a setting, said of the option that stands for it on the command line."""
    try:
        yield
    except InputError as error:
        said = (replace(problem, where="command line", key=option) for problem in error.problems)
        raise InputError(said) from error


def stage_source(stages_dir: Path, number: int, overrides: Sequence[str]) -> ModelSource:
    """A trained stage; 0 is the untouched base. Overrides hold for all stages: the output folder, for one, is
    where every adapter is sought.

    Raises InputError when the stage is not complete, its files were changed, or what it stands on was.
    """
    if number == 0:
        return _base(stages_dir, overrides)
    stage = survey_one(stages_dir, number, chosen=(), overrides=overrides)
    stage = with_base(stage, stages_dir, chosen=(), overrides=overrides)
    record = untouched_record(stage)
    settings = stage.settings
    return ModelSource(
        name=f"stage {number} of {stages_dir}",
        base=_loaded_as_trained(settings, record),
        adapter=settings.stage_dir,
        earlier=tuple(stage.chain.adapters),
        merged_base=settings.merged_base_dir,
        key=stage.chain.key,
        mode=record.merge_mode,
        tokenizer=settings.stage_dir,  # with the template as it was trained
        habits=_habits(settings),
        notices=other_than_trained(stage),
    )


def _loaded_as_trained(settings: StageSettings, record: StageRecord) -> ModelSettings:
    """In four bits if it was trained so, whatever the stage's file says by now; unless this command says
    otherwise."""
    if settings.origins["SFT_QUANTIZATION"] in {"--set", "environment"}:
        return settings.model
    return replace(settings.model, quantization=record.quantization)


def _base(stages_dir: Path, overrides: Sequence[str]) -> ModelSource:
    """Asked as stage 1 asks."""
    first = survey(stages_dir, list_stages(stages_dir)[:1] or (1,), overrides=overrides)[0].settings
    return ModelSource(
        name=f"the untouched base of {stages_dir}",
        base=first.model,
        template=first.data.chat_template,
        habits=_habits(first),
    )


def _habits(settings: StageSettings) -> Habits:
    asked, training = settings.evaluation, settings.training
    return Habits(
        asked.max_new_tokens,
        asked.batch_size,
        asked.task,
        asked.style,
        settings.data.output_markers,
        training.stall_seconds,
        training.on_stall == "stop",
    )
