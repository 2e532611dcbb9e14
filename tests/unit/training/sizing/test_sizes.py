import pytest

from lib.training.sizing.sizes import readable_bytes


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (61e9, "61.0 GB"), (2e15, "2000.0 TB")]
)
def test_readable_bytes(count: float, text: str) -> None:
    assert readable_bytes(count) == text
