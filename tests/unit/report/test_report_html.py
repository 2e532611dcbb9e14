"""The page as text; in a browser it is opened by the integration test."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from stage_records import HOSTILE, masked_row, retained, sample, samples, stage_record

from lib.data.chat.preview import MaskedRow, TokenView
from lib.report.content import report_content
from lib.report.page import page, write_report


class Elements(HTMLParser):
    """Counts tags, keeps attributes that point somewhere, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in {"src", "href"}]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["script"]:
            self.words.append(data)


def html(record: dict[str, Any] | None = None, **changes: Any) -> str:
    parts: dict[str, Any] = {
        "ancestors": [stage_record(1)],
        "samples": samples(),
        "masked_rows": [masked_row()],
        **changes,
    }
    return page(report_content(record or stage_record(2), **parts))


def test_the_page_needs_no_network() -> None:
    elements = Elements(html())
    assert all(link.startswith(("#", "data:")) for link in elements.links), elements.links
    assert "'unsafe-eval'" not in html()


def test_hostile_text_stays_text() -> None:
    """Everything that comes from data, models or settings."""
    record = stage_record(2, notices=[HOSTILE], mlflow_run_id=HOSTILE, versions={HOSTILE: HOSTILE})
    record["settings"] |= {HOSTILE: HOSTILE, "SFT_OUT_LORA_DIR": f"output/{HOSTILE}"}
    record["base"]["stage0"] = HOSTILE
    record["parents"][0]["folder"] = HOSTILE
    record["evaluation"]["retention"] = [retained(1, 0.7) | {"headline": HOSTILE}]
    for when in ("before", "after"):
        record["evaluation"][when]["metrics"][f"gen_{HOSTILE}"] = 0.5
    for line in record["data"]["ledger"]["sources"]:
        line["id"] = HOSTILE
    for line in record["data"]["ledger"]["labels"]:
        line["field"] = HOSTILE
        line["value"] += HOSTILE
    verdict = {"exact": False, "error": HOSTILE, "missing_paths": [HOSTILE]}
    hostile_sample = sample(
        1,
        wrong=True,
        row=HOSTILE,
        labels={HOSTILE: HOSTILE},
        prompt=HOSTILE,
        reference="x" + HOSTILE,
        answer="y" + HOSTILE,
        verdict=verdict,
    )
    hostile_row = MaskedRow(HOSTILE, HOSTILE, 1, 1, HOSTILE, (TokenView(HOSTILE, True, False, 1),))
    text = html(record, samples=[hostile_sample, *samples()], masked_rows=[hostile_row])
    elements, harmless = Elements(text), Elements(html(record=stage_record(2)))
    assert "img" not in elements.tags
    assert elements.handlers == []
    # One chart for the label field instead of two, and none that is not ours.
    assert elements.tags.count("script") == harmless.tags.count("script") - 1
    assert any("<img src=x" in words for words in elements.words)


def test_japanese_survives() -> None:
    text = html()
    assert "坊っちゃん" in text
    assert "質問" in text


def test_settings_that_were_set_come_before_the_defaults() -> None:
    text = html()
    assert text.index("SFT_LR") < text.index("1 settings left at their default") < text.index("SFT_SEED")


def test_missing_parts_are_said_and_not_left_blank() -> None:
    record = stage_record(1, scores={"before": None, "after": None}, mlflow_run_id="", notices=[])
    text = re.sub(r"\s+", " ", html(record, ancestors=[], samples=[], masked_rows=[]))
    for remark in (
        "No answers were scored in this stage.",
        "Nothing was measured yet.",
        "No answers were kept for this stage.",
        "No rows were kept to show.",
        "not tracked",
        "No warnings",
    ):
        assert remark in text, remark


def test_a_long_list_of_answers_points_to_the_file() -> None:
    text = html(samples=samples(320))
    assert "300 of 320 answers are on this page" in text
    assert "gen_metrics_step60.json" in text


def test_the_report_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = report_content(stage_record(1), [], samples(), [masked_row()])
    path = tmp_path / "report.html"
    path.write_text("the report of an earlier run")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space"):
            write_report(path, content)
    assert path.read_text() == "the report of an earlier run"
    write_report(path, content)
    assert path.read_text(encoding="utf-8").endswith("</html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_next_stage_is_proposed_with_its_arithmetic_and_its_file() -> None:
    text = html()
    for part in (
        "For the next stage",
        "SFT_UPSAMPLE_RULES",
        "(1 - 0.400) / (1 - 0.800) = 3.00",
        "python train.py --suggest 3",
        "# Stage 3, proposed from the scores of stage 2",
    ):
        assert part in text


def test_a_mix_in_tokens_says_what_was_given() -> None:
    record = stage_record(2)
    record["data"]["ledger"] |= {"unit": "tokens"}
    for line in record["data"]["ledger"]["sources"]:
        line["realised"] = 98765.0
    assert "98,765" in html(record)
    assert "Asked for and given: before upsampling, in tokens." in html(record)
