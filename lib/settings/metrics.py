"""The metrics by which models can be compared, and which way is better."""

from typing import Literal

from lib.settings.suggestions import did_you_mean

METRICS: dict[str, Literal["max", "min"]] = {
    "eval_loss": "min",
    "heldout_loss": "min",
    # Of every task.
    "gen_end_stop_rate": "max",
    "gen_truncation_rate": "min",
    "gen_empty_rate": "min",
    "gen_unusable_reference_rate": "min",
    # Documents.
    "gen_parse_rate": "max",
    "gen_key_path_score": "max",
    "gen_leaf_f1": "max",
    "gen_exact_match_rate": "max",
    "gen_structeval_score": "max",
    # Records of persons.
    "gen_json_parse_rate": "max",
    "gen_schema_ok_rate": "max",
    "gen_offender_presence_precision": "max",
    "gen_offender_presence_recall": "max",
    "gen_offender_presence_f1": "max",
    "gen_offender_name_set_f1": "max",
    "gen_field_exact_match_rate": "max",
    "gen_all_fields_exact_match_rate": "max",
    "gen_field_exact_match_rate_positive": "max",
    "gen_all_fields_exact_match_rate_positive": "max",
    "gen_fp_rate_on_negative": "min",
    "gen_unparsed_rate_on_negative": "min",
    # Free text.
    "gen_style_rate": "max",
    "gen_chrf": "max",
}
"""Base names, before any `/`, in the order in which they are explained."""
WITHOUT_DIRECTION = (
    "gen_samples",
    "gen_mean_new_tokens",
    "gen_avg_pred_offender_count",
    "gen_avg_gold_offender_count",
)
"""Reported, but neither more nor less of them is better."""


def direction(name: str) -> Literal["max", "min"]:
    """Whether more or less of a metric is better; `gen_parse_rate/toml` is a kind of `gen_parse_rate`.

    Raises ValueError, with the nearest known name, for any other.
    """
    base = name.partition("/")[0]
    if base in METRICS:
        return METRICS[base]
    if base in WITHOUT_DIRECTION:
        raise ValueError(f"{name} describes answers; neither more nor less of it is better")
    raise ValueError(" ".join(filter(None, (f"{name} is no known metric.", did_you_mean(base, METRICS)))))
