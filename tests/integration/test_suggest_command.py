"""`--suggest` as a user runs it, on a curriculum that was trained: a stage file that can be planned."""

from pathlib import Path

from tiny_curriculum import Curriculum

from lib.settings import load_stage


def test_the_proposal_for_the_next_stage_is_planned_as_it_is(trained: Curriculum, tmp_path: Path) -> None:
    curriculum = trained.copy_to(tmp_path / "copy")
    said = curriculum.command.done("--suggest", 4)
    path = curriculum.folder / "stages/stage4.suggested.env"
    assert "stages/stage4.suggested.env: stage 4 as stage 3 was" in said
    assert len(curriculum.status()) == 3
    again = curriculum.command("--suggest", 4)
    assert (again.returncode, "nothing is overwritten" in again.stderr) == (2, True)
    path.rename(path.with_name("stage4.env"))
    proposed, before = (load_stage(path.parent, number, environ={}) for number in (4, 3))
    assert proposed.strict
    assert (proposed.data, proposed.lora) == (before.data, before.lora)  # six answers prove nothing
    (plan,) = curriculum.plans(4)
    assert (plan["state"], plan["will_run"], plan["problems"]) == ("missing", True, [])


def test_a_stage_without_a_trained_one_before_it_is_refused(trained: Curriculum) -> None:
    for number in (1, 9):
        result = trained.command("--suggest", number)
        assert result.returncode == 2
        assert "--suggest 4 proposes stage 4" in result.stderr
        assert "Traceback" not in result.stderr
    assert trained.command("--suggest", "x").returncode == 2
    assert trained.command("--suggest", 4, "--stage", 1).returncode == 2
