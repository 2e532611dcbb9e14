"""A stage that replays earlier ones in an order of its own, with the real command."""

from pathlib import Path

import pytest
from tiny_curriculum import Curriculum


@pytest.fixture
def curriculum(trained: Curriculum, tmp_path: Path) -> Curriculum:
    copied = trained.copy_to(tmp_path / "copy")
    copied.set(3, SFT_REPLAY=0.25, SFT_ORDER="length", SFT_EPOCHS=1.5)
    return copied


def test_plan_and_run_of_a_replaying_stage_agree(curriculum: Curriculum) -> None:
    (plan,) = curriculum.plans(3)
    assert "SFT_REPLAY changed from 0 to 0.25" in plan["reasons"]
    curriculum.train(3)
    record = curriculum.record(3)
    ledger = record["data"]["ledger"]
    assert plan["ledger"] == ledger
    assert plan["steps"] == record["training"]["steps"] == ledger["steps"]
    replayed = [line for line in ledger["sources"] if line["replay_of"]]
    assert [line["id"] for line in replayed] == [
        "stage 1: general.jsonl",
        "stage 2: general.jsonl",
        "stage 2: toml.jsonl",
    ]
    own = sum(line["upsampled"] for line in ledger["sources"] if not line["replay_of"])
    assert ledger["replayed"] == int(own / 3 + 0.5)
    assert ledger["trained"] == sum(line["trained"] for line in ledger["sources"])
    assert "complete" in curriculum.status()[2]


def test_replayed_data_that_changed_is_named_before_anything_is_loaded(curriculum: Curriculum) -> None:
    with (curriculum.folder / "general.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "new", "completion": "Output: new"}\n')
    result = curriculum.command("--stage", 3, "--plan")
    assert result.returncode == 2
    assert "stage 1: general.jsonl: SFT_REPLAY" in result.stderr
    assert "Traceback" not in result.stderr
