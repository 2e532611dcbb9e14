"""Template and tokenizer of a stage, held against those of the stage below it."""

from __future__ import annotations

from collections.abc import Sequence

from lib.data.chat.chat_contract import ChatContract, Difference, chat_contract
from lib.data.chat.chat_format import ChatFormat
from lib.lineage.ancestry import Parent
from lib.lineage.curriculum import SurveyedStage
from lib.model.base_files import TEMPLATE_FILE
from lib.settings import InputError, Problem, StageSettings


def check_contract(
    stage: SurveyedStage, chat: ChatFormat, *, runs_before: Sequence[int] = ()
) -> tuple[list[Problem], list[str]]:
    """What keeps the stage from running on its parent, and what is only worth a notice.

    A model that learned to answer in one format and is trained on in another speaks neither well, so a change
    is refused unless SFT_ALLOW_TEMPLATE_CHANGE says that it is meant. `runs_before` are stages that the same
    command trains first: they will be compared when their turn has come.
    """
    parent = _nearest_recorded(stage)
    if parent is None or parent.record is None or parent.stage in runs_before:
        return [], []
    theirs = ChatContract.from_json(parent.record.chat)
    found = chat_contract(chat).differences(theirs)
    if stage.settings.data.allow_template_change:
        return [], [_notice(parent, difference) for difference in found]
    return [_problem(stage.settings, parent, difference) for difference in found], []


def keep_contract(stage: SurveyedStage, chat: ChatFormat) -> list[str]:
    """Notices about a change that is meant. Raises InputError for one that is not."""
    problems, notices = check_contract(stage, chat)
    if problems:
        raise InputError(problems)
    return notices


def _nearest_recorded(stage: SurveyedStage) -> Parent | None:
    recorded = [parent for parent in stage.chain.parents if parent.record]
    return recorded[-1] if recorded else None


def _notice(parent: Parent, difference: Difference) -> str:
    return (
        f"[WARNING] {difference.what} differs from stage {parent.stage} (SFT_ALLOW_TEMPLATE_CHANGE=1): "
        f"{difference.ours}, then {difference.theirs}"
    )


def _problem(settings: StageSettings, parent: Parent, difference: Difference) -> Problem:
    return Problem(
        where=str(settings.env_file),
        key="SFT_CHAT_TEMPLATE",
        value=f"{difference.what}: {difference.ours}",
        expected=f"what stage {parent.stage} was trained with: {difference.theirs}",
        remedy=f"set SFT_CHAT_TEMPLATE={parent.folder / TEMPLATE_FILE} to go on with the template of stage "
        f"{parent.stage}, or SFT_ALLOW_TEMPLATE_CHANGE=1 if the change is meant",
    )
