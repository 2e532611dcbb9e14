"""The settings of one stage: env file, process environment and `--set`, checked as a whole."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lib.settings.checks import contradictions, remarks
from lib.settings.errors import InputError, Problems, without_password
from lib.settings.keys import all_keys, groups_by_field
from lib.settings.layers import Given, Layers
from lib.settings.reading import Reading
from lib.settings.schema import StageSettings

__all__ = ["KEYS", "SPELLINGS", "StageSettings", "list_stages", "load_stage", "recorded_stage"]

KEYS = {key.env: key for key in all_keys(StageSettings)}
SPELLINGS = {name: key.env for key in KEYS.values() for name in (key.env, *key.known_as)}


def load_stage(
    stages_dir: Path, stage: int, *, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> StageSettings:
    """Stage `stage` of the curriculum in `stages_dir`.

    `overrides` are texts of the form KEY=VALUE. Only keys of this trainer are read from `environ`.
    Raises InputError with everything that is wrong in file, environment, overrides and their combination.
    """
    env_file = _stage_file(stages_dir, stage)
    problems = Problems()
    layers = Layers(SPELLINGS, problems)
    layers.add_file(env_file)
    layers.add_environment(environ)
    layers.add_overrides(overrides)
    settings = _read(env_file, stage, layers.result(), problems)
    _refuse_contradictions(settings, problems)
    problems.raise_if_any()
    return replace(settings, notices=(*layers.notices, *settings.notices, *remarks(settings)))


def recorded_stage(stage: int, values: Mapping[str, str], origins: Mapping[str, str]) -> StageSettings:
    """Settings from their texts as a stage record keeps them. Raises InputError for texts that are no longer
    allowed."""
    given = {
        name: Given(values[name], origins[name], layer=1)
        for name in KEYS
        if values.get(name) and origins.get(name, "default") != "default"
    }
    problems = Problems()
    settings = _read(Path(f"stage{stage}.env"), stage, given, problems)
    problems.raise_if_any()
    return settings


def list_stages(stages_dir: Path) -> tuple[int, ...]:
    """The numbers of the stage files (stage1.env, stage2.env, …) in ascending order.

    Raises InputError where the folder does not exist or cannot be read.
    """
    try:
        names = [entry.name for entry in Path(stages_dir).iterdir() if entry.is_file()]
    except (OSError, ValueError) as error:
        raise InputError.of(
            where=str(stages_dir),
            expected=f"a folder with stage files (stage1.env, stage2.env, …); {error}",
            remedy="Create it, or name another one with --stages-dir.",
        ) from error
    numbers = (re.fullmatch(r"stage([1-9][0-9]*)\.env", name) for name in names)
    return tuple(sorted(int(number.group(1)) for number in numbers if number))


def _stage_file(stages_dir: Path, stage: int) -> Path:
    stages = list_stages(stages_dir)
    env_file = Path(stages_dir) / f"stage{stage}.env"
    if stage in stages:
        return env_file
    if stages:
        there = f"a stage that exists: {_enumerate(f'stage{n}.env' for n in stages)}"
        remedy = f"Name one of these with --stage, or create it, for example from stage{stages[-1]}.env"
    else:
        there = "a stage file; this folder has none (stage1.env, stage2.env, …)"
        remedy = "Create it with at least SFT_BASE_MODEL, SFT_OUT_LORA_DIR and SFT_DATASET_ID"
    raise InputError.of(
        where=str(env_file), expected=there, remedy=f"{remedy}; another folder: --stages-dir DIR."
    )


def _read(env_file: Path, stage: int, given: Mapping[str, Given], problems: Problems) -> StageSettings:
    defaults = {name: key.default for name, key in KEYS.items() if key.default is not None}
    defaults["MLFLOW_EXPERIMENT_NAME"] = defaults["MLFLOW_EXPERIMENT_NAME"].replace("{N}", str(stage))
    reading = Reading(given, defaults, problems, env_file=env_file)
    # The stage's own keys come first: one of them, strictness, decides how the others are read.
    own = reading.members(StageSettings)
    reading.strict = own["strict"] or problems.about("SFT_STRICT")
    groups = {name: reading.group(members) for name, members in groups_by_field(StageSettings).items()}
    texts = {name: given[name].text if name in given else defaults.get(name, "") for name in KEYS}
    return StageSettings(
        stage=stage,
        env_file=env_file,
        **own,
        **groups,
        values={name: without_password(text) for name, text in texts.items()},
        origins={name: given[name].origin if name in given else "default" for name in KEYS},
        notices=tuple(reading.notices),
    )


def _refuse_contradictions(settings: StageSettings, problems: Problems) -> None:
    for found in contradictions(settings):
        # With one of the keys wrong by itself, its stand-in says nothing about the others.
        if any(problems.about(key) for key in found.keys):
            continue
        blamed = found.keys[0]
        origin, value = settings.origins[blamed], settings.values[blamed]
        where = origin if origin != "default" else str(settings.env_file)
        problems.add(where, key=blamed, value=value, expected=found.expected, remedy=found.remedy)


def _enumerate(names: Iterable[str]) -> str:
    return ", ".join(names)
