from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.commands import check as command
from lib.commands.arguments import parse
from lib.commands.check import check_stages
from lib.planning.stage_batch import with_batch
from lib.preflight.check import check_stage
from lib.preflight.subject import Subject
from lib.training.sizing.world import World

WORLD = World(1, 0)


@pytest.fixture
def subject(curriculum: Any) -> Callable[..., Subject]:
    """subject(World(2, 0), SFT_…=…): stage 1 as a run has it at its start."""

    def make(world: World = WORLD, **keys: Any) -> Subject:
        curriculum.stage(1, **keys)
        return Subject.of(with_batch(curriculum.surveyed(1), world), world)

    return make


@pytest.fixture
def states(curriculum: Any) -> Callable[..., dict[str, str]]:
    """states(1, SFT_…=…): verdict by name of the check of a stage, without the probe; a failed one counts
    most. `says` is what was found and what to do."""

    def check(number: int = 1, *, world: World = WORLD, chosen: tuple[int, ...] = (), **keys: Any) -> Any:
        curriculum.stage(number, **keys)
        checked = check_stage(
            curriculum.stages,
            number,
            world,
            chosen=chosen or (number,),
            overrides=(),
            characters=10**6,
            fast=True,
        )
        worst = sorted(checked.verdicts, key=lambda v: ("ok", "warning", "failed").index(v.state))
        check.checked = checked
        check.says = {v.name: f"{v.found} | {v.remedy}" for v in worst}
        return {v.name: v.state for v in worst}

    return check


@pytest.fixture
def checked(curriculum: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """checked("--stage", "all", "--json"): exit code of the command, in this process."""
    monkeypatch.setattr(command, "prepare_environment", lambda world: None)

    def run(*arguments: str, chosen: tuple[int, ...] = (1,)) -> int:
        options = parse(["--check", *arguments, "--stages-dir", str(curriculum.stages)], "")
        return check_stages(options, chosen, WORLD)

    return run


@pytest.fixture
def weights(curriculum: Any) -> Path:
    """The curriculum's base with weights, so that it can be loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(curriculum.base))
    model.save_pretrained(curriculum.base)
    return curriculum.base
