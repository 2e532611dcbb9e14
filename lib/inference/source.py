"""Which model answers, and how it was taught to be asked. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lib.data.chat_template import compile_template, find_template
from lib.evaluation.evaluation_set import read_evaluation_set
from lib.files import read_json
from lib.lineage.ancestry import merged_base_key
from lib.lineage.curriculum import survey, survey_one, with_base
from lib.lineage.fingerprint import (
    adapter_fingerprint,
    base_fingerprint,
    template_fingerprint,
    tokenizer_fingerprint,
)
from lib.lineage.finished import other_than_trained, untouched_record
from lib.lineage.record import RECORD, StageRecord, intact_record
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lib.model.base_files import obtain_base_folder
from lib.model.foreign_code import has_pickled_adapter, pickled_adapter
from lib.model.merge import find_merged
from lib.settings import InputError, ModelSettings, StageSettings, list_stages
from lib.settings.schema.data import MARKERS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Habits:
    """How the model is asked where the command line does not say, and how its answers are judged."""

    max_new_tokens: int = 1024
    batch_size: int = 16
    task: str = "auto"
    style: str = ""
    markers: tuple[str, ...] = tuple(MARKERS.split(","))


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

    def asked_with(self, template: str, dtype: Literal["auto", "bf16", "fp32"] | None) -> ModelSource:
        """With another chat template or precision, where given. Raises InputError for a bad template."""
        if template:
            with said_of("--chat-template"):
                compile_template(find_template(template))
        base = replace(self.base, dtype=dtype) if dtype else self.base
        return replace(self, base=base, template=template or self.template)

    def identity(self) -> dict[str, str]:
        """What decides its answers, by content."""
        base = base_fingerprint(self.base, thorough=False)
        folder = self.tokenizer or obtain_base_folder(self.base)
        return {
            "base": (self.key or base.outline or base.name)[:16],
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
        base=settings.model,
        adapter=settings.stage_dir,
        earlier=tuple(stage.chain.adapters),
        merged_base=settings.merged_base_dir,
        key=stage.chain.key,
        mode=record.merge_mode,
        tokenizer=settings.stage_dir,  # with the template as it was trained
        habits=_habits(settings),
        notices=other_than_trained(stage),
    )


def _base(stages_dir: Path, overrides: Sequence[str]) -> ModelSource:
    """Asked as stage 1 asks."""
    first = survey(stages_dir, list_stages(stages_dir)[:1], overrides=overrides)[0].settings
    return ModelSource(
        name=f"the untouched base of {stages_dir}",
        base=first.model,
        template=first.data.chat_template,
        habits=_habits(first),
    )


def _habits(settings: StageSettings) -> Habits:
    asked = settings.evaluation
    return Habits(
        asked.max_new_tokens, asked.batch_size, asked.task, asked.style, settings.data.output_markers
    )


def folder_source(folder: Path, base: str) -> ModelSource:
    """A model folder, or an adapter folder on the base that it names (or on `base`).

    Raises InputError when it is neither, and when a stage's base is not the one that it was trained on.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter_source(folder, base)
    if base:
        raise _no_model(folder, f"an adapter folder (with {ADAPTER_CONFIG}), because --base was given")
    if not (folder / "config.json").is_file():
        raise _no_model(folder, f"a folder with config.json (a model) or {ADAPTER_CONFIG} (an adapter)")
    return ModelSource(name=str(folder), base=ModelSettings(base_model=str(folder)))


def _no_model(folder: Path, expected: str) -> InputError:
    return InputError.of(
        where="command line",
        key="--model",
        value=f"{folder}{'' if folder.is_dir() else ', which is no folder'}",
        expected=expected,
        remedy="check the path; a stage of a curriculum is asked with --stage N",
    )


def _adapter_source(folder: Path, base: str) -> ModelSource:
    if has_pickled_adapter(folder):
        raise InputError([pickled_adapter(folder, "--model")])
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise _no_model(folder, f"an adapter with {ADAPTER_WEIGHTS} beside its {ADAPTER_CONFIG}")
    record = intact_record(folder)
    if not base and record is None and (folder / RECORD).exists():
        raise _no_model(folder, f"a stage whose {RECORD} is as its run wrote it, or --base")
    if base or record is None:
        source = ModelSource(str(folder), ModelSettings(base_model=base)) if base else _named_base(folder)
        with said_of("--base"):
            obtain_base_folder(source.base)
    else:
        source = _recorded_base(folder, record)
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return replace(
        source,
        adapter=folder,
        tokenizer=folder if has_tokenizer else None,
        habits=_habits_of_folder(folder),
    )


def _named_base(folder: Path) -> ModelSource:
    """The base that the adapter's own configuration names."""
    config = _adapter_config(folder)
    named = config.get("base_model_name_or_path")
    if not named:
        raise InputError.of(
            where=str(folder / ADAPTER_CONFIG),
            key="base_model_name_or_path",
            expected="the model that the adapter was trained on",
            remedy="name it with --base MODEL",
        )
    revision = str(config.get("revision") or "")
    return ModelSource(str(folder), ModelSettings(base_model=str(named), base_revision=revision))


def _adapter_config(folder: Path) -> Mapping[str, object]:
    try:
        content = read_json(folder / ADAPTER_CONFIG)
    except (OSError, ValueError) as error:
        raise _no_model(folder, f"a readable {ADAPTER_CONFIG} ({error})") from error
    return content if isinstance(content, dict) else {}


def _recorded_base(folder: Path, record: StageRecord) -> ModelSource:
    """The base that a stage of ours stands on: the merged one where it is still the same, else what it was
    merged from, where that is. A folder that lies where the base lay proves nothing."""
    base = ModelSettings(
        base_model=record.base["stage0"], base_revision=record.settings.get("SFT_BASE_REVISION", "")
    )
    lies = Path(record.base["path"])
    earlier = tuple(Path(parent["folder"]) for parent in record.parents)
    source = ModelSource(str(folder), base, earlier=earlier, merged_base=lies, key=record.base["key"])
    if record.merge_mode == "stack":  # nothing of the stage's own lies there
        source = replace(source, merged_base=Path(), mode="stack")
    found = find_merged(source.merged_base)
    if earlier and found.key == source.key and not found.changed:
        return replace(source, base=ModelSettings(base_model=str(lies)), earlier=())
    with said_of("--base"):
        obtain_base_folder(base)
    if merged_base_key(base_fingerprint(base, thorough=True).content, earlier) != source.key:
        raise InputError.of(
            where=str(folder),
            key="--model",
            value=str(lies),
            expected="the base that this stage was trained on, or the model and the earlier adapters that it "
            f"was merged from ({', '.join(map(str, [base.base_model, *earlier]))}; relative paths start at "
            "the working directory)",
            remedy="run the command where the stage was trained, put back what changed, "
            "or name another base with --base MODEL",
        )
    return source


def _habits_of_folder(folder: Path) -> Habits:
    kept = read_evaluation_set(folder)
    if kept is None or not kept.task:
        return Habits()
    return Habits(kept.max_new_tokens, task=kept.task, style=kept.style, markers=kept.markers)
