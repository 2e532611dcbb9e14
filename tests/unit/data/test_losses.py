from collections.abc import Callable
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import plan_rows, prepare_rows
from lib.settings.errors import InputError
from lib.settings.schema import StageSettings

MakeSettings = Callable[..., StageSettings]


def test_what_is_dropped_is_counted_and_said(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    answers = ["fine", "Output:", "long " * 100, "fine too"]
    settings = stage(SFT_DATASET_ID=data_file(answers), SFT_VAL_RATIO=0, SFT_MAX_SEQ_LEN=60)
    prepared = prepare_rows(settings, chat)
    count = prepared.ledger.encoded
    assert count is not None
    assert (count.rows, count.too_long, count.nothing_supervised) == (2, 1, 1)
    assert len(prepared.train) == 2
    assert sum("were dropped" in notice for notice in prepared.notices) == 2


@pytest.mark.parametrize(
    ("answer", "keys", "remedy"),
    [
        ("long " * 100, {"SFT_MAX_SEQ_LEN": 60}, "raise SFT_MAX_SEQ_LEN"),
        ("thinking Output:", {}, "check SFT_OUTPUT_MARKERS and SFT_MASK_COT"),
    ],
)
def test_when_nothing_is_left_counts_and_remedy_are_given(
    stage: MakeSettings,
    data_file: Callable[..., str],
    chat: ChatFormat,
    answer: str,
    keys: dict[str, Any],
    remedy: str,
) -> None:
    settings = stage(SFT_DATASET_ID=data_file([answer] * 3), **keys)
    for attempt in (prepare_rows, plan_rows):
        with pytest.raises(InputError, match=f"0 of 2 draws left[\\s\\S]*{remedy}"):
            attempt(settings, chat)


def test_a_data_set_of_which_nothing_is_left_is_named(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    whole = data_file([f"Output: {i}" for i in range(10)], "whole.jsonl", type="表")
    nothing = data_file([f"Nothing {i}\nOutput:" for i in range(10)], "nothing.jsonl", type="要約")
    settings = stage(SFT_DATASET_IDS=f"{whole},{nothing}", SFT_VAL_RATIO=0)
    prepared = prepare_rows(settings, chat)
    assert [notice for notice in prepared.notices if "nothing of" in notice] == [
        f"[WARNING] nothing of {nothing} is trained on: all 10 draws were dropped",
        "[WARNING] nothing of type: 要約 is trained on: all 10 draws were dropped",
    ]
    assert plan_rows(settings, chat).notices == prepared.notices
    guessed = plan_rows(settings, chat, characters=1).notices
    looked_at = "all that this plan looked at of its 10 draws were dropped"
    assert f"[WARNING] nothing of {nothing} is trained on: {looked_at}" in guessed
