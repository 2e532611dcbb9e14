"""`--suggest`: a proposal for the next stage, as a file that a person edits. Never loads torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lib.lineage.curriculum import SurveyedStage, survey
from lib.lineage.finished import other_than_trained
from lib.lineage.record import read_record
from lib.report.next_stage import NextStage, next_stage
from lib.report.next_stage_text import next_stage_text, reasons, score_lines
from lib.settings import InputError, list_stages, load_stage
from lib.settings.env_text import quoted
from lib.settings.errors import printable


def show_suggestion(options: argparse.Namespace) -> int:
    """Writes the proposal for stage `--suggest`, from the scores of the stage before, and says why."""
    number, folder = options.suggest, options.stages_dir
    path = options.to or folder / f"stage{number}.suggested.env"
    _refuse_existing(path)
    earlier = [stage for stage in list_stages(folder) if stage < number]
    if number - 1 not in earlier:
        raise _nothing_before(number, folder, earlier)
    last = survey(folder, earlier, overrides=options.set)[-1]
    record = read_record(last.settings.stage_dir)
    if record is None:
        raise _not_trained(last)
    ancestors = [asdict(parent.record) for parent in last.chain.parents if parent.record]
    proposal = next_stage(asdict(record), ancestors)
    text = next_stage_text(proposal)
    _write(path, text, number)
    print(*other_than_trained(last), *_said(proposal, path, folder), sep="\n")
    return 0


def _said(proposal: NextStage, path: Path, folder: Path) -> list[str]:
    number = proposal.stage
    where = "" if folder == Path("stages") else f" --stages-dir {quoted(str(folder))}"
    changed = ", ".join(change.key for change in proposal.changes) or "no key"
    used = folder / f"stage{number}.env"
    lines = [
        f"{path}: stage {number} as stage {number - 1} was, with {changed} changed",
        *(f"  {line}" for line in (*score_lines(proposal), *reasons(proposal))),
        "next: edit it, then",
        *([] if path == used else [f"  mv -n {quoted(str(path))} {quoted(str(used))}"]),
        f"  python train.py{where} --stage {number} --plan",
    ]
    return [printable(line) for line in lines]


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError.of(
            where=str(path),
            expected="no file of this name: nothing is overwritten",
            remedy="Name another file with --to FILE, or delete this one.",
        )


def _nothing_before(number: int, folder: Path, earlier: list[int]) -> InputError:
    can = [stage + 1 for stage in list_stages(folder)]
    return InputError.of(
        where="command line",
        key="--suggest",
        value=str(number),
        expected=f"a stage to propose from the one before it; {folder} has no stage {number - 1}",
        remedy=f"--suggest {can[-1]} proposes stage {can[-1]} from the scores of stage {can[-1] - 1}"
        if can
        else "Name the curriculum's folder with --stages-dir.",
    )


def _not_trained(stage: SurveyedStage) -> InputError:
    number = stage.settings.stage
    return InputError.of(
        where=str(stage.settings.stage_dir),
        key=f"stage {number}",
        value="; ".join(stage.status.reasons) or stage.status.state,
        expected="a complete stage, whose scores say what the next one should train on",
        remedy=f"run python train.py --stage {number} first",
    )


def _write(path: Path, text: str, number: int) -> None:
    """The whole file or none, and only one that loads. Raises InputError."""
    try:
        _check(path, text, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as file, _removed_unless_whole(path):
            file.write(text)
            file.flush()
    except OSError as error:
        raise InputError.of(
            where=str(path),
            expected=f"a new file in a place that can be written to ({error.strerror})",
            remedy="Name another file with --to FILE, or make room.",
        ) from error


def _check(path: Path, text: str, number: int) -> None:
    """Loads it as it will be read. What is wrong then is in the record: a value that is no longer allowed."""
    with TemporaryDirectory() as folder:
        draft = Path(folder) / f"stage{number}.env"
        draft.write_text(text, encoding="utf-8")
        try:
            load_stage(Path(folder), number, environ={})
        except InputError as error:
            problems = (replace(p, where=p.where.replace(str(draft), str(path))) for p in error.problems)
            raise InputError(problems) from error


@contextmanager
def _removed_unless_whole(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
