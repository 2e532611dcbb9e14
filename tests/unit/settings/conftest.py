"""A small curriculum to load: `load` writes a stage file and loads it, `refused` returns what is wrong."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from lib.settings import InputError, Problem, StageSettings, load_stage

MINIMAL = "SFT_BASE_MODEL=me/base\nSFT_OUT_LORA_DIR=out/lora\nSFT_DATASET_ID=me/data\n"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., StageSettings]:
    """load(extra lines, overrides=…, environ=…): the stage loaded from the minimal file and these."""

    def write_and_load(
        lines: str = "",
        *,
        overrides: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        minimal: str = MINIMAL,
        stage: int = 1,
    ) -> StageSettings:
        (tmp_path / f"stage{stage}.env").write_text(minimal + lines, encoding="utf-8")
        return load_stage(tmp_path, stage, overrides=overrides, environ=environ or {})

    return write_and_load


@pytest.fixture
def refused(load: Callable[..., StageSettings]) -> Callable[..., tuple[Problem, ...]]:
    """The same arguments; the problems of the InputError that must come."""

    def problems(*args: object, **kwargs: object) -> tuple[Problem, ...]:
        with pytest.raises(InputError) as caught:
            load(*args, **kwargs)
        return caught.value.problems

    return problems
