"""What survived rounding, in numbers."""

import math

import pytest

from lib.model.merge_proof import Tally, proof_line, proof_notices, summarise

EXACT = Tally(intended=4.0, error=0.0, cross=0.0, changed=True)
LOST = Tally(intended=4.0, error=4.0, cross=-4.0, changed=False)
UNTOUCHED = Tally()


def test_kept_and_noise_of_known_cases() -> None:
    assert (EXACT.kept, EXACT.noise) == (1.0, 0.0)
    assert (LOST.kept, LOST.noise) == (0.0, 1.0)
    assert (UNTOUCHED.kept, UNTOUCHED.noise) == (1.0, 0.0)
    # R = D + E with E at right angles to D and half as long.
    aside = Tally(intended=4.0, error=1.0, cross=0.0, changed=True)
    assert (aside.kept, aside.noise) == (1.0, 0.5)


def test_sums_of_tensors_are_weighed_by_their_updates() -> None:
    total = EXACT + LOST
    assert total == Tally(8.0, 4.0, -4.0, True)
    assert (total.kept, total.noise) == (0.5, pytest.approx(math.sqrt(0.5)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite(value: float) -> None:
    assert EXACT.finite
    assert not (EXACT + Tally(error=value)).finite
    assert not Tally(cross=value).finite


def test_summary_and_line() -> None:
    tensors = {"a": EXACT, "e.1": LOST, "e.2": EXACT, "e.3": UNTOUCHED}
    proof = summarise(tensors, experts=frozenset({"e.1", "e.2", "e.3"}), adapter_tensors=6)
    assert proof == {
        "kept": 0.666667,
        "noise": 0.57735,
        "tensors": 4,
        "tensors_changed": 2,
        "expert_tensors": 3,
        "expert_tensors_changed": 1,
        "adapter_tensors_used": 6,
        "least_kept": {"tensor": "e.1", "kept": 0.0, "noise": 1.0, "changed": False},
    }
    expected = "2 tensors changed (1 of 3 expert tensors), 66.7 % of the update kept, noise 58 %"
    assert proof_line(proof) == expected
    dense = summarise({"a": EXACT}, experts=frozenset(), adapter_tensors=2)
    assert proof_line(dense) == "1 tensors changed, 100 % of the update kept, noise 0 %"


@pytest.mark.parametrize(("least", "warned"), [(0.0, False), (0.66, False), (0.67, True), (1.0, True)])
def test_the_threshold_of_the_warning(least: float, warned: bool) -> None:
    assert bool(proof_notices({"kept": 0.666667}, least)) == warned
