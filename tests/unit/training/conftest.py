from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.settings import StageSettings, load_stage


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StageSettings]:
    """stage(SFT_LR="3e-5", …): the settings of a stage file with these keys."""

    def make(**keys: Any) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": "base",
            "SFT_OUT_LORA_DIR": tmp_path / "lora",
            "SFT_DATASET_ID": "owner/set",
            **keys,
        }
        (tmp_path / "stage1.env").write_text("".join(f"{k}='{v}'\n" for k, v in values.items()))
        return load_stage(tmp_path, 1, environ={})

    return make


@pytest.fixture(scope="session")
def make_trained(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """make_trained(SFT_EVAL_STEPS=3, …): a stage that can be trained in sessions."""
    from interrupted_runs import begun

    return lambda **keys: begun(tiny_model("qwen3_moe"), tmp_path_factory.mktemp("run"), **keys)
