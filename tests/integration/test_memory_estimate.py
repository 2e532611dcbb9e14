"""What the plan says of memory against what the run took."""

import pytest
from tiny_curriculum import STAGES, Curriculum


@pytest.mark.parametrize("stage", STAGES)
def test_the_plan_knows_what_a_tiny_run_takes(trained: Curriculum, stage: int) -> None:
    """Nearly all of it is libraries; `--stage all` trains its stages in one process, so later ones find what
    earlier ones left."""
    (plan,) = trained.plans(stage)
    took = trained.record(stage)["training"]["peak_memory_bytes"]
    assert plan["estimates"]["memory"]["value"] == pytest.approx(took, rel=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["moe", "moe, rank 64", "dense, long rows"])
def test_the_estimate_is_within_fifteen_per_cent(setting: str, tmp_path: object) -> None:
    from pathlib import Path

    from bench.memory import BOUND, SETTINGS, measured

    found = measured(setting, SETTINGS[setting], Path(str(tmp_path)))
    assert abs(found["error"]) < BOUND, found
