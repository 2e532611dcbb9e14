import pytest

from lib.training.durations import readable_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (599, "9 min 59 s"),
        (645, "11 min"),
        (3599.7, "1 h 00 min"),
        (3661, "1 h 01 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_readable_duration(seconds: float, text: str) -> None:
    assert readable_duration(seconds) == text
