import pytest

from lib.settings import InputError
from lib.training.sizing.cards import CARDS, GB, card_named, parse_hardware


@pytest.mark.parametrize(
    ("text", "count", "name", "gigabytes"),
    [
        ("4xH100", 4, "H100", 80),
        ("1xh200", 1, "H200", 141),
        ("4xH100-80GB", 4, "H100", 80),
        ("8xA100-40GB", 8, "A100-40GB", 40),
        ("8xA100-80gb", 8, "A100", 80),
        ("2xH100-PCIe", 2, "H100-PCIe", 80),
        ("2x48GB", 2, "48 GB GPU", 48),
    ],
)
def test_hardware_is_a_count_and_a_kind_or_a_size(text: str, count: int, name: str, gigabytes: int) -> None:
    found, card = parse_hardware(text)
    assert (found, card.name, card.memory) == (count, name, gigabytes * GB)
    assert bool(card.flops) == ("GPU" not in name)


@pytest.mark.parametrize("text", ["", "4", "H100", "0xH100", "4xV100", "-1xH100", "4x", "4xH100x", "4 x GB"])
def test_anything_else_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_hardware(text)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("--hardware", text)
    assert "H200-NVL" in problem.remedy


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match="did you mean L40S"):
        parse_hardware("4xL40")


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce GTX 1080", ""),
        ("NVIDIA L40", ""),
    ],
)
def test_a_driver_s_name_is_recognised(driver: str, name: str) -> None:
    found = card_named(driver)
    assert (found.name if found else "") == name


def test_every_card_has_its_data_sheet() -> None:
    assert all(card.memory and card.flops and card.bandwidth for card in CARDS)
    assert len({card.name.lower() for card in CARDS}) == len(CARDS)
