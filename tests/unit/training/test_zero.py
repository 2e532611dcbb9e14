import json
from pathlib import Path
from typing import Any

import pytest

from lib.settings import InputError, TrainingSettings
from lib.training.zero import deepspeed_config


def training(path: Path | None = None) -> TrainingSettings:
    return TrainingSettings(per_device_train_bs=3, grad_accum=4, max_grad_norm=0.5, deepspeed_config=path)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """own({...}): settings whose SFT_DEEPSPEED_CONFIG is this JSON."""

    def write(content: dict[str, Any]) -> TrainingSettings:
        path = tmp_path / "deepspeed.json"
        path.write_text(json.dumps(content))
        return training(path)

    return write


def test_ours_is_zero2_and_leaves_the_arithmetic_to_the_trainer() -> None:
    config = deepspeed_config(training(), processes=2, gpus=0)
    assert config["zero_optimization"]["stage"] == 2
    assert config["zero_optimization"]["overlap_comm"] is False
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    assert config["gradient_clipping"] == "auto"
    # DeepSpeed's own default allocates 2 GB of a GPU at every pass.
    assert config["zero_optimization"]["reduce_bucket_size"] <= 10**8
    on_gpu = deepspeed_config(training(), processes=2, gpus=2)
    assert on_gpu["zero_optimization"]["overlap_comm"] is True


def test_the_users_own_is_taken_as_it_is_when_it_agrees(own: Any) -> None:
    content = {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}},
    }
    assert deepspeed_config(own(content), processes=2, gpus=0) == content
    for sparse in ({}, {"zero_optimization": None}):
        assert deepspeed_config(own(sparse), processes=2, gpus=0) == sparse


def test_every_contradiction_is_named_at_once(own: Any) -> None:
    wrong = {
        "train_batch_size": 12,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 8,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 3},
    }
    with pytest.raises(InputError) as caught:
        deepspeed_config(own(wrong), processes=2, gpus=0)
    found = {problem.key: problem for problem in caught.value.problems}
    assert set(found) == {*wrong} - {"zero_optimization"} | {"zero_optimization.stage"}
    assert found["train_batch_size"].value == "12"
    assert '"auto" or 24 ' in found["train_batch_size"].expected
    assert found["gradient_clipping"].remedy == 'write "gradient_clipping": "auto"'
    assert all(problem.where.endswith("deepspeed.json") for problem in found.values())


def test_the_number_of_processes_counts(own: Any) -> None:
    settings = own({"train_batch_size": 24})
    deepspeed_config(settings, processes=2, gpus=0)
    with pytest.raises(InputError, match='"auto" or 48'):
        deepspeed_config(settings, processes=4, gpus=0)
