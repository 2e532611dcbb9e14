"""The report of a stage, put together from what a run has at hand."""

from __future__ import annotations

from dataclasses import asdict

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.chat.preview import masked_rows
from lib.data.mixing.mixture import Mixture
from lib.evaluation.stage_evaluation import StageEvaluation
from lib.lineage.base_scores import read_base_scores
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.gate import gated
from lib.lineage.record import REPORT, StageRecord
from lib.report.content import report_content
from lib.report.page import write_report

MASKED_ROWS = 3


def write_stage_report(
    stage: SurveyedStage,
    record: StageRecord,
    evaluation: StageEvaluation,
    mixture: Mixture,
    chat: ChatFormat,
) -> None:
    """`report.html` in the stage's folder."""
    settings = stage.settings
    ancestors = [asdict(parent.record) for parent in stage.chain.parents if parent.record]
    masked = masked_rows(chat, mixture.train, EncodingRules.of(settings.data), limit=MASKED_ROWS)
    base_scores = read_base_scores(settings.output, stage.chain.base.content)
    judged = asdict(record)
    judged["evaluation"]["retention"] = gated(record, settings.evaluation.retention_min)
    content = report_content(judged, ancestors, evaluation.after.samples, masked, base_scores)
    write_report(settings.stage_dir / REPORT, content)
