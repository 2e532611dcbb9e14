"""The check that what has to be downloaded can be: base model and data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lib.failures.explain import explain
from lib.failures.two_readings import A_MODEL, SOME_ROWS, Readings, two_readings
from lib.model.base_files import base_is_here
from lib.planning.obstacles import obstacles
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict
from lib.settings import Problem

ANSWER_SECONDS = 10


def base_and_data(subject: Subject) -> Iterator[Verdict]:
    """The base model is here, or the Hub lets this account have it; and so for data sets. Nothing is
    downloaded. A path to nowhere is among the stage's obstacles."""
    from huggingface_hub import HfApi

    hub, model = HfApi(), subject.settings.model
    if base_is_here(model):
        yield Verdict.ok("base model", f"{model.base_model} is on this machine")
    elif all(problem.key != "SFT_BASE_MODEL" for problem in obstacles(subject.stage)[0]):
        revision = model.base_revision or None

        def ask() -> None:
            hub.model_info(model.base_model, revision=revision, timeout=ANSWER_SECONDS)
            hub.auth_check(model.base_model)

        where = subject.settings.origins["SFT_BASE_MODEL"]
        yield _asked("base model", A_MODEL, Problem(where, "SFT_BASE_MODEL", model.base_model), ask)
    for absent in subject.planned.absent if subject.planned else ():

        def ask_for_data(name: str = absent.id) -> None:
            hub.dataset_info(name, timeout=ANSWER_SECONDS)
            hub.auth_check(name, repo_type="dataset")

        yield _asked("data", SOME_ROWS, Problem("data set", value=absent.id), ask_for_data)


def _asked(name: str, kind: str, asked_for: Problem, ask: Callable[[], Any]) -> Verdict:
    """`asked_for` says where, as what key and which repository."""
    repository = asked_for.value
    try:
        ask()
    # The HTTP client and the Hub's own client raise types of many kinds; each means that it cannot be had.
    except Exception as error:
        found = explain(error)
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        expected, remedy = two_readings(repository, kind, found) or Readings(
            f"a repository of the Hub that can be read ({first_line})",
            found.failure.remedy if found else "give a local folder",
        )
        return Verdict.failed(name, replace(asked_for, expected=expected, remedy=remedy))
    return Verdict.ok(name, f"{repository} is on the Hub and open to this account: the run downloads it")
