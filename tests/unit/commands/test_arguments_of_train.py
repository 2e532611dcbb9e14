import sys
from pathlib import Path

import pytest

from lib.commands.arguments import parse, worker_command


def test_defaults() -> None:
    options = parse(["--stage", "2"], "what it does")
    assert (options.stage, options.stages_dir, options.set) == ("2", Path("stages"), [])
    assert options.nproc is None
    assert not any((options.force, options.plan, options.status, options.json, options.show_mask))


def test_overrides_are_collected_in_order() -> None:
    options = parse(["--stage", "all", "--set", "A=1", "--set", "B= x y ", "--nproc", "3"], "")
    assert options.set == ["A=1", "B= x y "]
    assert options.nproc == 3


def test_status_needs_no_stage() -> None:
    assert parse(["--status"], "").status
    assert parse(["--status", "--json"], "").json


def test_an_import_needs_no_stage() -> None:
    assert parse(["--import-config", "x.yml"], "").to == Path("stages-imported")
    assert parse(["--import-config", "x.yml", "--to", "mine"], "").to == Path("mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which stage"),
        (["--plan"], "say which stage"),
        (["--stage", "1", "--show-mask", "3"], "--show-mask belongs to --plan"),
        (["--stage", "1", "--json"], "--json belongs to"),
        (["--stage", "1", "--nproc", "two"], "two: expected a whole number"),
        (["--stage", "1", "--plan", "--show-mask", "-3"], "expected a whole number of at least 0"),
        (["--stage", "1", "--nonsense"], "unrecognized"),
        (["--stage", "1", "--to", "x"], "--to belongs to --import-config or --suggest"),
        (["--import-config", "x.yml", "--plan"], "--import-config goes with --to alone"),
    ],
)
def test_what_is_wrong_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, "")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_keeps_the_examples_of_the_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], "First line.\n\n    python train.py --stage all")
    assert caught.value.code == 0
    assert "\n    python train.py --stage all" in capsys.readouterr().out


def test_a_workers_command_is_this_stage_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py"), "--stage", "all"])
    options = parse(["--stage", "1-3", "--stages-dir", "mine", "--set", "A=1", "--set", "B=2"], "")
    script, *arguments = worker_command(options, 2)
    assert script == str(tmp_path / "train.py")
    worker = parse(arguments, "")
    assert (worker.stage, worker.stages_dir, worker.set) == ("2", Path("mine"), ["A=1", "B=2"])
    assert worker.force
    assert worker.nproc is None
