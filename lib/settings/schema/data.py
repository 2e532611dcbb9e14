"""The data sets, their mixture and what of each row is learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lib.settings.json_values import MixEntry, mix, rules, shares, whole_set, whole_sets
from lib.settings.keys import Key, first_of, key
from lib.settings.readers import (
    choice,
    flag,
    integer,
    local_or_named,
    number,
    optional,
    ranks,
    words,
)

NO_CACHE = "off"
LEVELS = "simple|easy|low,medium|moderate,complex|hard|high"
MARKERS = "Output:,OUTPUT:,Final:,Answer:,Result:,Response:"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What the stage learns from. Of the three keys that name data sets the first one given counts."""

    mix: tuple[MixEntry, ...] = first_of(
        Key(
            "SFT_DATASET_MIX",
            None,
            mix(),
            "",
            "Data sets drawn in proportion to their weights; a weight left out is 1.0, a split `train`",
            known_as=("SFT_DATASETS", "SFT_MIX"),
        ),
        Key("SFT_DATASET_IDS", None, whole_sets(), "", "All rows of several data sets"),
        Key("SFT_DATASET_ID", None, whole_set(), "", "All rows of one data set", known_as=("SFT_DATASET",)),
    )
    mix_total_size: int | None = key(
        "SFT_DATASET_MIX_TOTAL_SIZE",
        "",
        optional(integer(minimum=1)),
        unit="SFT_MIX_UNIT",
        meaning="Size of the mix; empty: as much as the largest set of a mix has, or all of it without",
    )
    mix_unit: Literal["rows", "tokens", "supervised_tokens"] = key(
        "SFT_MIX_UNIT",
        "rows",
        choice("rows", "tokens", "supervised_tokens"),
        meaning="What sizes and weights count; tokens are those after truncation, supervised ones carry loss",
    )
    mix_weights: Literal["share", "multiplier", "cap"] = key(
        "SFT_MIX_WEIGHTS",
        "share",
        choice("share", "multiplier", "cap"),
        meaning="What a weight says: part of the mix, times its own size, or at most so much of it",
    )
    mix_exhausted: Literal["repeat", "stop", "error"] = key(
        "SFT_MIX_EXHAUSTED",
        "repeat",
        choice("repeat", "stop", "error"),
        meaning="A data set is asked for more than it has: repeat its rows evenly, shrink the whole mix with "
        "its shares kept, or refuse",
    )
    mix_max_repeats: int | None = key(
        "SFT_MIX_MAX_REPEATS",
        "",
        optional(integer(minimum=1)),
        unit="times",
        meaning="How often the weights may draw a row; empty: any number with `repeat`, else once",
    )
    negative_share: Mapping[str, float] = key(
        "SFT_NEGATIVE_SHARE",
        "",
        shares(),
        unit="share",
        meaning="Negatives among the rows that are told apart: of the whole mix, or by data set or label",
    )
    negative_labels: tuple[str, ...] | None = key(
        "SFT_NEGATIVE_LABELS",
        "",
        optional(words("a comma-separated list of labels")),
        meaning="Labels that make a row a negative; extraction records tell it by their answer",
    )
    val_ratio: float = key(
        "SFT_VAL_RATIO",
        "0.05",
        number(minimum=0, below=1),
        unit="share of rows",
        meaning="Distinct rows held out for validation before anything is repeated; 0: none",
    )
    max_seq_len: int = key(
        "SFT_MAX_SEQ_LEN",
        "2048",
        integer(minimum=1),
        unit="tokens",
        known_as=("SFT_MAX_LENGTH", "SFT_MAX_SEQ_LENGTH"),
        meaning="Longest row; of a longer one the prompt is cut on the left, or it is dropped",
    )
    chat_template: str = key(
        "SFT_CHAT_TEMPLATE",
        "",
        local_or_named("a bundled template's name or a jinja file, or empty"),
        meaning="Chat template; empty: the tokenizer's own",
    )
    allow_template_change: bool = key(
        "SFT_ALLOW_TEMPLATE_CHANGE",
        "0",
        flag(),
        meaning="Whether this stage may write conversations otherwise than the stage before it did",
    )
    mask_cot: bool = key(
        "SFT_MASK_COT",
        "1",
        flag(),
        meaning="Learn the last answer from its earliest output marker on; without a marker, all of it",
    )
    output_markers: tuple[str, ...] = key(
        "SFT_OUTPUT_MARKERS",
        MARKERS,
        words("a comma-separated list of markers"),
        meaning="Where the reasoning ends and the output begins",
    )
    output_learn_mode: Literal["after_marker", "from_marker"] = key(
        "SFT_OUTPUT_LEARN_MODE",
        "after_marker",
        choice("after_marker", "from_marker"),
        meaning="Whether the marker itself is learned (from_marker) or not",
    )
    use_upsampling: bool = key(
        "SFT_USE_UPSAMPLING", "0", flag(), known_as=("SFT_UPSAMPLING",), meaning="Apply SFT_UPSAMPLE_RULES"
    )
    upsample_rules: Mapping[str, float] = key(
        "SFT_UPSAMPLE_RULES",
        "",
        rules(),
        unit="times",
        meaning="Times that rows with a label are seen an epoch; labels are metadata such as format and type",
    )
    packing: bool = key(
        "SFT_PACKING",
        "0",
        flag(),
        meaning="Fill sequences of SFT_MAX_SEQ_LEN tokens with whole rows that do not see each other; "
        "batch sizes then count sequences, not rows (docs/batches.md)",
    )
    replay: float = key(
        "SFT_REPLAY",
        "0",
        number(minimum=0, below=1),
        unit="share of rows",
        meaning="Part of the stage that is drawn from what earlier stages learned from, against forgetting",
    )
    order: Literal["shuffled", "length", "complexity"] = key(
        "SFT_ORDER",
        "shuffled",
        choice("shuffled", "length", "complexity"),
        meaning="Order of an epoch: shuffled, or from easy to hard by tokens or declared complexity",
    )
    order_pacing: Literal["linear", "root", "step"] = key(
        "SFT_ORDER_PACING",
        "linear",
        choice("linear", "root", "step"),
        meaning="How fast harder rows join the easy ones (docs/mixing.md)",
    )
    order_levels: Mapping[str, int] = key(
        "SFT_ORDER_LEVELS",
        LEVELS,
        ranks("levels from easy to hard between commas, equal ones between |"),
        meaning="Words for complexity; numbers need no entry",
    )
    cache_dir: str = key(
        "SFT_CACHE_DIR",
        "",
        local_or_named("a folder, `off`, or empty"),
        meaning="Where rows of large data sets are kept prepared (docs/preparation.md); empty: "
        "`lora-curriculum/data` in the user's cache folder; `off`: nowhere, they stay in memory",
    )
    streaming: bool = key(
        "SFT_DATASET_STREAMING",
        "0",
        flag(),
        meaning="Read Hub data sets row by row as they arrive: their files are not stored, only the rows of "
        "the part that is asked for, such as `train[:50000]` (docs/preparation.md)",
    )
    cache_gb: float = key(
        "SFT_CACHE_GB",
        "100",
        number(minimum=0, maximum=1_000_000),
        unit="GB",
        meaning="How large that folder may grow: beyond, what was not used for longest is removed",
    )
    num_proc: int | None = key(
        "SFT_DATASET_NUM_PROC",
        "",
        optional(integer(minimum=1)),
        unit="processes",
        meaning="Processes that prepare rows of large data sets; empty: one per core",
    )
