"""From a configuration to a stage file that loads: nothing is written before it does."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lib.importing.axolotl import from_axolotl
from lib.importing.draft import StageDraft
from lib.importing.foreign import AXOLOTL, read_config
from lib.importing.llama_factory import from_llama_factory
from lib.importing.stage_text import stage_text
from lib.settings import InputError, Problem, load_stage


@dataclass(frozen=True)
class ImportedStage:
    """A stage file that is written, and what was found on the way."""

    trainer: str
    path: Path
    draft: StageDraft
    notices: tuple[str, ...]
    """What loading the file had to say."""


def import_config(config: Path, folder: Path) -> ImportedStage:
    """Writes `folder`/stage1.env from an Axolotl or LLaMA-Factory YAML.

    Raises InputError, and writes nothing, for a file of neither, for what this trainer does not do, for
    values that it does not take, and for a stage file that is there already.
    """
    destination = folder / "stage1.env"
    if destination.exists():
        raise InputError.of(
            where=str(destination),
            expected="no file of this name: nothing is overwritten",
            remedy="Name another folder with --to DIR, or delete the file.",
        )
    trainer, section = read_config(config)
    draft = StageDraft()
    if trainer == AXOLOTL:
        from_axolotl(section, draft)
    else:
        from_llama_factory(section, draft, config)
    draft.account_for(section)
    text = stage_text(draft, trainer, config.name)
    notices = _loaded(text, draft, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with destination.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        expected = f"a folder that can be written to ({error.strerror})"
        raise InputError.of(
            where=str(folder), expected=expected, remedy="Name another with --to DIR."
        ) from error
    return ImportedStage(trainer, destination, draft, notices)


def _loaded(text: str, draft: StageDraft, config: Path) -> tuple[str, ...]:
    """Notices of the stage as it loads. Raises InputError with the problems of rules and settings."""
    problems = [replace(problem, where=str(config)) for problem in draft.problems]
    notices: tuple[str, ...] = ()
    with TemporaryDirectory() as folder:
        (Path(folder) / "stage1.env").write_text(text, encoding="utf-8")
        try:
            notices = load_stage(Path(folder), 1, environ={}).notices
        except InputError as error:
            problems += [_traced(problem, draft, config) for problem in error.problems]
        notices = tuple(notice.replace(f"{folder}/", "") for notice in notices)
    if problems:
        raise InputError(problems)
    return notices


def _traced(problem: Problem, draft: StageDraft, config: Path) -> Problem:
    """The problem where the user can mend it: at the key that the setting came from."""
    carried = draft.settings.get(problem.key)
    source = f"{problem.key}, from {carried.source}" if carried else problem.key
    remedy = f"Correct it in {config.name} and import it again. As a stage file has it: {problem.remedy}"
    return replace(problem, where=str(config), key=source, remedy=remedy)
