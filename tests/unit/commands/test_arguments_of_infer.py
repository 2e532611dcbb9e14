"""Which options of infer.py go together."""

from pathlib import Path

import pytest

from lib.commands.arguments import parse_infer
from lib.evaluation.decoding import Sampling
from lib.inference.source import Habits
from lib.inference.wishes import Wishes


def test_defaults() -> None:
    options = parse_infer(["--stage", "2"], "")
    assert (options.stage, options.stages_dir, options.model, options.set) == (2, Path("stages"), None, [])
    assert Wishes.of(options) == Wishes()
    assert not parse_infer(["--stage", "0", "--adapter"], "").merged
    assert parse_infer(["--model", "m", "--merged"], "").merged


def test_wishes_say_what_the_answers_follow_from() -> None:
    line = "--stage 1 --temperature 0.5 --top-p 0.9 --top-k 0 --seed 7 --max-new-tokens 5 --system s"
    wishes = Wishes.of(parse_infer(line.split(), ""))
    assert wishes.sampling == Sampling(0.5, 0.9, 0, None)
    decisive = wishes.decisive(Habits())
    assert (decisive["seed"], decisive["max new tokens"], decisive["system prompt"]) == ("7", "5", "s")
    assert Wishes(seed=1).decisive(Habits()) == Wishes(seed=2).decisive(Habits()), "greedy draws nothing"
    assert Wishes(batch_size=1, merged=False).decisive(Habits()) == Wishes().decisive(Habits())
    assert Wishes().decisive(Habits(max_new_tokens=9))["max new tokens"] == "9"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "say which model answers"),
        ("--stage 1 --model m", "say which model answers"),
        ("--stage -1", "expected a whole number of at least 0"),
        ("--stage two", "expected a whole number"),
        ("--model m --set A=1", "--set belongs to --stage"),
        ("--stage 1 --base b", "--base belongs to --model"),
        ("--stage 1 --input a", "belong together"),
        ("--stage 1 --output a", "belong together"),
        ("--stage 1 --input a --output b --prompt c", "two ways to ask"),
        ("--stage 1 --input a --output ./a", "another file"),
        ("--stage 1 --prompt q --force", "belong to --input"),
        ("--stage 1 --batch-size 4", "belong to --input"),
        ("--stage 1 --input a --output b --batch-size 0", "at least 1"),
        ("--stage 1 --top-p 0.5", "--temperature"),
        ("--stage 1 --temperature -1", "expected a number from 0"),
        ("--stage 1 --temperature nan", "expected a number from 0"),
        ("--stage 1 --temperature 1 --top-p 1.5", "from 0 to 1"),
        ("--stage 1 --merged --adapter", "not allowed with"),
        ("--stage 1 --dtype fp8", "invalid choice"),
    ],
)
def test_what_is_wrong_exits_with_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_infer(line.split(), "")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "\udce3"])
def test_text_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_infer(["--stage", "1", "--prompt", text], "")
    assert "argument --prompt: expected" in capsys.readouterr().err
