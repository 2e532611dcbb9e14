"""What a finished stage prints."""

from lib.lineage.completion import metrics_table


def test_a_long_name_does_not_run_into_its_value() -> None:
    long, short = "gen_all_fields_exact_match_rate_positive", "gen_leaf_f1"
    scored = {
        "metrics": {long: 0.25, short: 0.5, "gen_samples": 8.0, "gen_leaf_f1/toml": 1.0},
        "intervals": {short: (0.25, 0.75)},
    }
    head, *lines = metrics_table({"before": scored, "after": scored})
    assert lines == [
        f"    {long} 0.250                 0.250",
        f"    {short:<40} 0.500 [0.25, 0.75]    0.500 [0.25, 0.75]",
    ]
    assert head.startswith("  8 held-out rows ")
    assert head.index("before") == lines[0].index("0.250")


def test_nothing_scored_is_no_table() -> None:
    assert metrics_table({}) == []
    assert metrics_table({"after": {"metrics": {"gen_samples": 0.0}, "intervals": {}}}) == []
