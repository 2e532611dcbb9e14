"""Settings that need a package which is not here."""

import importlib.util
from typing import Any

import pytest

from lib.planning.obstacles import preconditions
from lib.planning.packages import package_problems
from lib.settings import InputError

KEYS = {"SFT_QUANTIZATION": "nf4", "SFT_OPTIM": "paged_adamw_8bit", "SFT_TENSORBOARD": "1"}
PACKAGES = {"SFT_QUANTIZATION": "bitsandbytes", "SFT_OPTIM": "bitsandbytes", "SFT_TENSORBOARD": "tensorboard"}


@pytest.mark.parametrize("key", KEYS)
def test_a_package_that_is_missing_is_named_before_anything_runs(
    key: str, curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    curriculum.stage(1, **{key: KEYS[key]})
    stage = curriculum.surveyed(1)
    assert package_problems(stage.settings) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        preconditions(stage)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == (key, KEYS[key])
    assert problem.where.endswith("stage1.env:5")
    assert f"pip install {PACKAGES[key]}" in problem.remedy


def test_other_settings_need_nothing(curriculum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    curriculum.stage(1, SFT_OPTIM="adafactor")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert package_problems(curriculum.surveyed(1).settings) == []
