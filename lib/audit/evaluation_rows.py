"""The rows that the stages of a curriculum are evaluated on: none of them may be trained on.

The other stages count as their files and the environment say, trained or not: a plan and a run, whichever
stages they are about, see the same rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib.data.mixing.mixture import held_out_keys
from lib.data.reading.rows import Example
from lib.data.reading.sources import Source, load_source, load_sources
from lib.data.reading.usable_rows import SourceRows, read_examples
from lib.settings import InputError, StageSettings, list_stages, load_stage

OwnCleaning = Callable[[StageSettings, Sequence[SourceRows]], Sequence[SourceRows]]
"""What a stage's own audit leaves of its tables before it looks at evaluation rows."""


@dataclass(frozen=True)
class EvaluationRows:
    rows: Mapping[str, Example]
    """By key."""
    stage_of: Mapping[str, str]
    """By key, whose they are: `the evaluation of stage 2`."""
    notices: tuple[str, ...] = ()


def evaluation_rows(settings: StageSettings, clean: OwnCleaning, *, allow_download: bool) -> EvaluationRows:
    """What every stage's answers are scored on, but for the validation rows of the stage itself: its
    SFT_GEN_EVAL_DATASET_ID, and for each other stage of the folder that as well and its validation rows.

    What cannot be read is a notice: the other stages' own runs make an error of it.
    """
    rows: dict[str, Example] = {}
    stage_of: dict[str, str] = {}
    notices: list[str] = []
    for stage, found in _by_stage(settings, clean, notices, allow_download=allow_download):
        for example in found:
            rows.setdefault(example.key, example)
            stage_of.setdefault(example.key, f"the evaluation of stage {stage}")
    return EvaluationRows(rows, stage_of, tuple(notices))


def _by_stage(
    settings: StageSettings,
    clean: OwnCleaning,
    notices: list[str],
    *,
    allow_download: bool,
) -> Iterator[tuple[int, Iterable[Example]]]:
    stages_dir = settings.env_file.parent
    others = [number for number in list_stages(stages_dir) if number != settings.stage]
    for number in sorted([*others, settings.stage]):
        try:
            of = settings if number == settings.stage else load_stage(stages_dir, number)
            yield number, _named_set(of, allow_download, notices)
            if of is not settings:
                yield number, _validation(of, clean, allow_download, notices)
        except InputError as error:
            first = error.problems[0]
            notices.append(
                f"[WARNING] stage {number}: its evaluation rows cannot be read, so that nobody knows whether "
                f"they stand in the training data ({first.where}: {first.value or first.expected})"
            )


def _named_set(of: StageSettings, allow_download: bool, notices: list[str]) -> Sequence[Example]:
    name = of.evaluation.dataset_id
    if not name:
        return ()
    loaded = load_source(name, "train", allow_download=allow_download)
    if loaded is None:
        notices.append(_not_here(name, of.stage))
        return ()
    return read_examples(Source(name, name, "train", None, *loaded), strict=False)[0].examples


def _validation(
    of: StageSettings,
    clean: OwnCleaning,
    allow_download: bool,
    notices: list[str],
) -> list[Example]:
    """The rows that another stage holds out of its mix."""
    if not of.data.val_ratio:
        return []
    loaded = load_sources(of.data, strict=False, allow_download=allow_download)
    notices += [_not_here(absent.id, of.stage) for absent in loaded.absent]
    own = [read_examples(source, strict=False)[0] for source in loaded.sources]
    if of.audit.mode == "remove":
        own = [*clean(of, own)]
    held_out = {key for keys in held_out_keys(own, of.data.val_ratio, of.seed) for key in keys}
    return [example for table in own for example in table.examples if example.key in held_out]


def _not_here(name: str, stage: int) -> str:
    return (
        f"data set {name} of stage {stage} is not on this machine: rows that the stage is evaluated on are "
        "not looked for"
    )
