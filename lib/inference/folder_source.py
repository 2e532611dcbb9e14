"""A model named by its folder: an ordinary model, an adapter of anybody's, or a stage of this trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lib.evaluation.evaluation_set import read_evaluation_set
from lib.files import read_json
from lib.inference.source import Habits, ModelSource, said_of
from lib.lineage.ancestry import merged_base_key
from lib.lineage.fingerprint import base_fingerprint
from lib.lineage.record import RECORD, StageRecord, intact_record
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lib.model.base_files import obtain_base_folder
from lib.model.foreign_code import has_pickled_adapter, pickled_adapter
from lib.model.merge import find_merged
from lib.settings import InputError, ModelSettings

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


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
        remedy="check the path; a stage of a curriculum is asked with --stage N, a model of the Hub as the "
        "base of one: --stage 0 --set SFT_BASE_MODEL=ID",
    )


def _adapter_source(folder: Path, base: str) -> ModelSource:
    if has_pickled_adapter(folder):
        raise InputError([pickled_adapter(folder, "--model")])
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise _no_model(folder, f"an adapter with {ADAPTER_WEIGHTS} beside its {ADAPTER_CONFIG}")
    record = intact_record(folder)
    if not base and record is None and (folder / RECORD).exists():
        raise _no_model(folder, f"a stage whose {RECORD} is as its run wrote it, or --base")
    if base:
        loaded = ModelSettings(base_model=base, quantization=record.quantization if record else "none")
        source = replace(_on(loaded, folder), notices=_other_base(folder, record, base))
    elif record is None:
        source = _on(_named_base(folder), folder)
    else:
        source = _recorded_base(folder, record)
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return replace(
        source,
        adapter=folder,
        tokenizer=folder if has_tokenizer else None,
        habits=_habits_of_folder(folder),
    )


def _other_base(folder: Path, record: StageRecord | None, base: str) -> tuple[str, ...]:
    """Earlier stages may be in the one and not in the other: an adapter fits both, and answers otherwise."""
    trained_on = record.base["path"] if record else base
    if Path(trained_on).resolve() == Path(base).resolve():
        return ()
    return (f"  [WARNING] {folder} was trained on {trained_on}; it is asked on {base}",)


def _on(base: ModelSettings, folder: Path) -> ModelSource:
    with said_of("--base"):
        obtain_base_folder(base)
    return ModelSource(str(folder), base)


def _named_base(folder: Path) -> ModelSettings:
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
    return ModelSettings(base_model=str(named), base_revision=revision)


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
        base_model=record.base["stage0"],
        base_revision=record.settings.get("SFT_BASE_REVISION", ""),
        quantization=record.quantization,
    )
    lies = Path(record.base["path"])
    earlier = tuple(Path(parent["folder"]) for parent in record.parents)
    source = ModelSource(str(folder), base, earlier=earlier, merged_base=lies, key=record.base["key"])
    if record.merge_mode == "stack":  # nothing of the stage's own lies there
        source = replace(source, merged_base=Path(), mode="stack")
    found = find_merged(source.merged_base)
    if earlier and found.key == source.key and not found.changed:
        return replace(source, base=replace(base, base_model=str(lies), base_revision=""), earlier=())
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
