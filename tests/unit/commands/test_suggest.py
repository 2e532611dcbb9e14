"""`--suggest` in this process, on stages that look as if they had been trained."""

import json
import resource
from dataclasses import replace
from typing import Any

import pytest

from lib.commands.arguments import parse
from lib.commands.show import show_plans
from lib.commands.suggest import show_suggestion
from lib.lineage.record import write_record
from lib.settings import InputError, load_stage
from lib.training.sizing.world import World

SPANS = {"gen_leaf_f1": [0.65, 0.75], "gen_leaf_f1/json": [0.4, 0.6], "gen_leaf_f1/toml": [0.85, 0.95]}
SCORES = {"gen_samples": 400.0, "gen_leaf_f1": 0.7, "gen_leaf_f1/json": 0.5, "gen_leaf_f1/toml": 0.9}


def suggest(curriculum: Any, number: int, *arguments: object) -> None:
    options = ["--suggest", number, "--stages-dir", curriculum.stages, *arguments]
    assert show_suggestion(parse(list(map(str, options)), "")) == 0


@pytest.fixture
def scored(curriculum: Any) -> Any:
    """One trained stage that answers in JSON worse than in TOML."""
    rows = [
        {"prompt": f"質問 {i}", "completion": f"answer {i}", "format": ("json", "toml")[i % 2]}
        for i in range(40)
    ]
    lines = (json.dumps({"metadata": {"format": row.pop("format")}, **row}) + "\n" for row in rows)
    curriculum.data.write_text("".join(lines), encoding="utf-8")
    curriculum.stage(1)
    record = curriculum.train(1)
    after = {"metrics": SCORES, "intervals": SPANS}
    evaluation = record.evaluation | {"headline": "gen_leaf_f1", "after": after}
    write_record(curriculum.folder(1), replace(record, evaluation=evaluation))
    return curriculum


def test_the_proposal_is_written_beside_the_stage_files_and_is_no_stage_yet(
    scored: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    suggest(scored, 2)
    path = scored.stages / "stage2.suggested.env"
    said = capsys.readouterr().out
    assert str(path) in said
    assert "json      0.50 [0.40, 0.60]  behind  1 -> 1.7" in said
    assert "(1 - 0.500) / (1 - 0.700) = 1.67" in said
    assert f"mv -n {path} {scored.stages / 'stage2.env'}" in said
    assert [stage.settings.stage for stage in scored.survey()] == [1]


def test_the_proposal_loads_and_plans_without_a_change(
    scored: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    suggest(scored, 2, "--to", scored.stages / "stage2.env")
    settings = load_stage(scored.stages, 2, environ={})
    assert settings.data.upsample_rules == {"json": 1.7}
    capsys.readouterr()
    options = parse(["--stage", "2", "--plan", "--json", "--stages-dir", str(scored.stages)], "")
    assert show_plans(options, (2,), World(1, 0)) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    before = json.loads((scored.folder(1) / "stage.json").read_text(encoding="utf-8"))["data"]["ledger"]
    drawn = {line["value"]: line["drawn"] for line in plan["ledger"]["labels"]}
    assert abs(plan["ledger"]["upsampled"] - before["upsampled"]) <= 1
    assert drawn["json"] > 1.5 * drawn["toml"]
    assert plan["problems"] == []


def test_nothing_is_overwritten(scored: Any) -> None:
    path = scored.stages / "stage2.suggested.env"
    suggest(scored, 2)
    path.write_text("# edited\n")
    for place in (path, scored.stages / "stage1.env", scored.root / "dangling"):
        if not place.exists():
            place.symlink_to(scored.root / "nowhere")
        kept = place.read_bytes() if place.exists() else None
        with pytest.raises(InputError, match="nothing is overwritten"):
            suggest(scored, 2, "--to", place)
        assert (place.read_bytes() if place.exists() else None) == kept


def test_the_scores_come_from_the_stage_before(scored: Any) -> None:
    with pytest.raises(InputError, match="has no stage 2") as caught:
        suggest(scored, 3)
    assert "--suggest 2 proposes stage 2 from the scores of stage 1" in str(caught.value)
    with pytest.raises(InputError, match="has no stage 0"):
        suggest(scored, 1)
    scored.stage(2)
    with pytest.raises(InputError, match="stage 2") as caught:
        suggest(scored, 3)
    assert "run python train.py --stage 2 first" in str(caught.value)
    assert [path.name for path in sorted(scored.stages.iterdir())] == ["stage1.env", "stage2.env"]


def test_a_stage_that_is_stale_is_used_as_it_was_trained(
    scored: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scored.stage(1, SFT_LR="9e-5")
    suggest(scored, 2)
    assert "[WARNING] stage 1 is stale" in capsys.readouterr().out
    assert "SFT_LR" not in (scored.stages / "stage2.suggested.env").read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_to_is_said(scored: Any) -> None:
    (scored.root / "file").write_text("")
    with pytest.raises(InputError, match="can be written to"):
        suggest(scored, 2, "--to", scored.root / "file" / "stage2.env")


def test_a_full_disk_leaves_no_half_of_a_file(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.commands.suggest._check", lambda *_: None)  # its own draft fits nowhere either
    place = scored.root / "half.env"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="can be written to"):
            suggest(scored, 2, "--to", place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not place.exists()


def test_a_full_disk_is_said_before_anything_is_written(scored: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="make room"):
            suggest(scored, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in scored.stages.iterdir()] == ["stage1.env"]
