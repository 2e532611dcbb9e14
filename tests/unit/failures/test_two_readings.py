"""A name that may be a path and a Hub id."""

from pathlib import Path

import pytest

from lib.failures.explain import Explanation, known
from lib.failures.known import DISK_FULL, GATED, NOT_ON_HUB, UNREACHABLE
from lib.failures.two_readings import A_MODEL, two_readings


def failed_by(name: str) -> Explanation:
    return Explanation(known(name), "ConnectError: refused")


def test_both_readings_are_said_with_the_place_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    readings = two_readings("models/qwen", A_MODEL, failed_by(NOT_ON_HUB))
    assert readings is not None
    assert readings.expected.startswith(
        f"a model folder, but there is none at {tmp_path}/models/qwen; or a Hub id"
    )
    assert "if a path is meant, correct it" in readings.remedy
    assert known(NOT_ON_HUB).remedy in readings.remedy
    unreachable = two_readings("models/qwen", A_MODEL, failed_by(UNREACHABLE))
    assert unreachable is not None
    assert "(ConnectError: refused)" in unreachable.expected


def test_what_is_gated_is_no_path() -> None:
    readings = two_readings("owner/model", A_MODEL, failed_by(GATED))
    assert readings is not None
    assert "folder" not in readings.expected
    assert readings.remedy == known(GATED).remedy


def test_what_is_there_or_failed_otherwise_has_no_two_readings(tmp_path: Path) -> None:
    assert two_readings(str(tmp_path), A_MODEL, failed_by(UNREACHABLE)) is None
    assert two_readings("owner/model", A_MODEL, failed_by(DISK_FULL)) is None
    assert two_readings("owner/model", A_MODEL, None) is None
