"""The rule that says which steps have gone wrong."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from lib.settings import StageSettings
from lib.training.numerics.numbers import FIRST, MOST_IN_A_ROW, WINDOW, Numbers, notices, spike_limit

MakeStage = Callable[..., StageSettings]


def judged(numbers: Numbers, losses: list[float], norm: float = 1.0) -> list[str]:
    """The action for each loss in turn; empty where all is well."""
    verdicts = [numbers.judge(step, loss, norm) for step, loss in enumerate(losses, start=1)]
    return [verdict.action if verdict else "" for verdict in verdicts]


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (math.nan, 1.0, "the loss is not a number"),
        (-math.inf, 1.0, "the loss is infinite"),
        (0.0, 1.0, "the loss is exactly 0: nothing is learned"),
        (1.0, math.nan, "the gradient is not a number"),
        (1.0, math.inf, "the gradient is infinite"),
        (1.0, 0.0, "the gradient is exactly 0: nothing is learned"),
    ],
)
def test_what_is_wrong_by_itself(
    stage: MakeStage, policy: str, loss: float, norm: float, reason: str
) -> None:
    verdict = Numbers(stage(SFT_ON_NAN=policy).training).judge(1, loss, norm)
    assert verdict is not None
    assert (verdict.reason, verdict.action) == (reason, policy)


def test_a_norm_that_nobody_knows_is_not_judged(stage: MakeStage) -> None:
    numbers = Numbers(stage().training)
    assert numbers.judge(1, 1.0, None) is None
    assert numbers.memory["norms"] == []


@pytest.mark.parametrize(
    ("policy", "action"), [("warn", "train"), ("skip", "skip"), ("stop", "stop"), ("off", "")]
)
def test_a_spike_is_far_above_the_last_steps(stage: MakeStage, policy: str, action: str) -> None:
    chance = random.Random(1)
    usual = [1.0 + chance.uniform(-0.2, 0.2) for _ in range(FIRST)]
    assert judged(Numbers(stage(SFT_ON_SPIKE=policy).training), [*usual, 9.0, 1.0]) == [""] * FIRST + [
        action,
        "",
    ]
    verdict = [Numbers(stage(SFT_ON_SPIKE=policy).training).judge(1, 1.0, n) for n in (1.0, 50.0)]
    assert verdict == [None, None]  # too few are known


def test_a_spike_of_the_gradient_alone(stage: MakeStage) -> None:
    numbers = Numbers(stage().training)
    judged(numbers, [1.0 + i % 3 / 10 for i in range(FIRST)])
    verdict = numbers.judge(17, 1.0, 40.0)
    assert verdict is not None
    assert verdict.reason == "the gradient norm of 40 is a spike (limit 1.5, median 1)"
    clipped_later = Numbers(stage(SFT_MAX_GRAD_NORM=50).training)
    judged(clipped_later, [1.0] * FIRST)
    assert clipped_later.judge(17, 1.0, 40.0) is None


def test_the_usual_noise_and_a_loss_that_falls_are_no_spikes(stage: MakeStage) -> None:
    chance = random.Random(2)
    numbers = Numbers(stage().training)
    for step in range(1, 1000):
        loss = 3 * math.exp(-step / 200) * chance.lognormvariate(0, 0.3) + 1e-3
        assert numbers.judge(step, loss, chance.lognormvariate(0, 0.4)) is None


def test_another_level_is_a_spike_only_until_it_is_the_usual(stage: MakeStage) -> None:
    actions = judged(Numbers(stage(SFT_ON_SPIKE="skip").training), [1.0] * WINDOW + [4.0] * WINDOW)
    assert actions[WINDOW] == "skip"
    # With 10 in a row left out the run stops; where it goes on, half a window is enough.
    assert actions[WINDOW + MOST_IN_A_ROW] == "stop"
    warned = judged(Numbers(stage().training), [1.0] * WINDOW + [4.0] * WINDOW)
    assert warned[WINDOW:].count("train") == WINDOW // 2


def test_leaving_out_ends_where_it_does_not_help(stage: MakeStage) -> None:
    numbers = Numbers(stage(SFT_ON_NAN="skip").training)
    assert judged(numbers, [math.nan] * (MOST_IN_A_ROW + 1)) == ["skip"] * MOST_IN_A_ROW + ["stop"]
    assert judged(Numbers(stage(SFT_ON_NAN="skip").training), [math.nan, 1.0] * 20).count("stop") == 0


def test_the_memory_survives_a_checkpoint(stage: MakeStage) -> None:
    """Judged from the same numbers, in one go or in two."""
    chance = random.Random(3)
    losses = [chance.lognormvariate(0, 1.2) for _ in range(200)]
    settings = stage(SFT_SPIKE_DEVIATIONS=2).training
    whole, first, second = Numbers(settings), Numbers(settings), Numbers(settings)
    expected = judged(whole, losses)
    found = judged(first, losses[:77])
    second.memory = json.loads(json.dumps(first.memory))
    assert found + judged(second, losses[77:]) == expected
    assert "train" in expected


def test_the_limit_in_numbers() -> None:
    assert spike_limit([1.0, 2.0, 3.0, 4.0, 100.0], 10, 0.05) == pytest.approx(3 + 10 * 1.4826)
    assert spike_limit([2.0] * 9, 10, 0.0) == pytest.approx(3.0)
    assert spike_limit([0.001] * 9, 10, 0.05) == pytest.approx(0.501)


def test_notices_say_how_many_and_which() -> None:
    bad: list[dict[str, Any]] = [
        {"step": i, "reason": "the loss is infinite", "action": "skip"} for i in range(5)
    ]
    bad.append({"step": 9, "reason": "a spike", "action": "train"})
    unmeasured = [{"step": 4, "reason": "the eval_loss is infinite"}]
    left_out, trained, unscored = notices({"bad": bad, "unmeasured": unmeasured}, 20, "bad.jsonl")
    assert left_out.startswith("[WARNING] 5 of 20 steps were left out: step 0: the loss is infinite; step 1")
    assert left_out.endswith("and 2 more (rows in bad.jsonl)")
    assert trained == "[WARNING] 1 of 20 steps were trained on: step 9: a spike (rows in bad.jsonl)"
    assert unscored == (
        "[WARNING] evaluations without a score, which is never the best: 1, "
        "step 4: the eval_loss is infinite (rows of wrong losses in bad.jsonl)"
    )
    assert notices({"bad": []}, 20, "bad.jsonl") == ()  # a checkpoint from before evaluations were judged


def test_means_over_the_steps_that_were_done(stage: MakeStage) -> None:
    numbers = Numbers(stage(SFT_ON_NAN="skip").training)
    judged(numbers, [1.0, math.nan, 2.0, math.nan])
    assert numbers.fair({"loss": 0.75, "epoch": 1.0}) == {"loss": 1.5, "epoch": 1.0, "skipped_steps": 2}
    judged(numbers, [1.0, 2.0])
    assert numbers.fair({"loss": 1.5}) == {"loss": 1.5}
    judged(numbers, [math.nan])
    assert "loss" not in numbers.fair({"loss": 0.0})
    assert numbers.fair({"train_loss": 4 / 7})["train_loss"] == pytest.approx(1.0)
    assert Numbers(stage().training).fair({"loss": 1.0}) == {"loss": 1.0}
