from pathlib import Path

import pytest

from lib.settings.metrics import METRICS, WITHOUT_DIRECTION, direction


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("eval_loss", "min"),
        ("heldout_loss", "min"),
        ("gen_leaf_f1", "max"),
        ("gen_parse_rate/toml", "max"),
        ("gen_leaf_f1/complexity/complex", "max"),
        ("gen_field_exact_match_rate/age", "max"),
        ("gen_fp_rate_on_negative", "min"),
        ("gen_truncation_rate", "min"),
    ],
)
def test_every_metric_has_a_better_side(name: str, better: str) -> None:
    assert direction(name) == better


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gen_leaf_f2", r"gen_leaf_f2 is no known metric\. Did you mean gen_leaf_f1\?"),
        ("gen_parse_rat/toml", r"Did you mean gen_parse_rate\?"),
        ("zzz", r"^zzz is no known metric\.$"),
        ("gen_samples", "neither more nor less"),
        ("gen_mean_new_tokens", "neither more nor less"),
    ],
)
def test_another_name_is_refused_with_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        direction(name)


def test_no_name_stands_in_both_lists() -> None:
    assert not set(METRICS) & set(WITHOUT_DIRECTION)
    assert not [name for name in (*METRICS, *WITHOUT_DIRECTION) if "/" in name]


def test_every_metric_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in (*METRICS, *WITHOUT_DIRECTION):
        assert f"`{name}`" in page or f"`{name}/<field>`" in page, name
