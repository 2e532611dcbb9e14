"""A suggestion as text: the arithmetic in words, and the stage file that a person edits and then trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len

from lib.evaluation.retention import Interval
from lib.lineage.ancestry import PASSING
from lib.report.label_scores import LabelScore
from lib.report.mix_changes import Change
from lib.report.next_stage import NextStage
from lib.report.wording import metric_words, score
from lib.settings.env_text import WIDTH, commented, key_groups, quoted
from lib.settings.errors import printable


def next_stage_text(proposal: NextStage) -> str:
    """The stage file: why it is as it is, then every key in the order of docs/settings.md.

    It has what the record of the stage before says that was given, by file, environment or --set.
    """
    record = proposal.based_on
    lines = [
        *commented(
            f"Stage {proposal.stage}, proposed from the scores of stage {record['stage']} "
            f"(finished {record['finished']}). Edit it, look at it with --plan, then train it."
        ),
        "#",
        *(f"# {printable(line)}" for line in score_lines(proposal)),
        *(line for said in reasons(proposal) for line in commented(said, indent="  ")),
        "#",
        *commented("docs/mixing.md explains the arithmetic. All other keys are those of the stage before."),
    ]
    changes = {change.key: change for change in proposal.changes}
    given, origins = _given(proposal), record["origins"]
    for group in key_groups():
        found = [key for key in group if key in changes or key in given]
        lines += (
            ["", *(line for key in found for line in _setting(key, given, changes.get(key), origins))]
            if found
            else []
        )
    return "\n".join(lines) + "\n"


def reasons(proposal: NextStage) -> list[str]:
    """What changes and what does not, with the arithmetic, a sentence or two each."""
    said = [
        f"Set of stage {entry.stage}: {entry.metric} was {score(entry.best)} {entry.best_model}, is "
        f"{score(entry.now)} {_span(entry.interval)} now: "
        f"{'forgotten' if entry.forgotten else 'kept, as far as that can be told'}."
        for entry in proposal.kept
    ]
    said += [f"{change.key}={change.value}: {change.why}." for change in _with_reasons(proposal)]
    if proposal.negatives:
        said.append(f"Negatives: {proposal.negatives.arithmetic}")
    said += proposal.remarks
    return said if proposal.changes else [*said, "So nothing changes: the mix is that of the stage before."]


def _with_reasons(proposal: NextStage) -> Iterator[Change]:
    """The negatives' arithmetic is said once."""
    return (change for change in proposal.changes if change.key != "SFT_NEGATIVE_SHARE")


def score_lines(proposal: NextStage) -> list[str]:
    """The score of all rows, and a table of the labels, the weakest first."""
    labels = proposal.labels
    if labels is None:
        return []
    head = f"{labels.metric} ({metric_words(labels.metric)}), {labels.samples:,} held-out rows"
    rows = [
        (
            " ".join(label.value.split()),
            f"{score(label.score)} {_span(label.interval)}",
            label.verdict,
            _multipliers(label),
        )
        for label in labels.labels
    ]
    table = [
        (labels.field, "score", "", "multiplier"),
        *rows,
        ("all rows", f"{score(labels.score)} {_span(labels.interval)}", "", ""),
    ]
    widths = [max(cell_len(row[column]) for row in table) for column in range(4)]
    return [head, *("  " + _row(row, widths) for row in (table if rows else table[-1:]))]


def _multipliers(label: LabelScore) -> str:
    present = f"{label.present:g}"
    return present if label.proposed == label.present else f"{present} -> {label.proposed:g}"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """In columns; Japanese characters take two places."""
    padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def _span(interval: Interval) -> str:
    return f"[{score(interval[0])}, {score(interval[1])}]"


def _given(proposal: NextStage) -> dict[str, str]:
    record = proposal.based_on
    return {
        key: value
        for key, value in record["settings"].items()
        if value and record["origins"].get(key, "default") != "default"
    }


def _setting(
    key: str, given: Mapping[str, str], change: Change | None, origins: Mapping[str, str]
) -> list[str]:
    """The line; what was changed, and what no stage file said, with a comment."""
    value = quoted(change.value if change else given[key])
    remark = f"from {origins[key]}" if key in given and origins[key] in PASSING else ""
    if change:
        remark = f"was {' '.join(change.was.split()) or 'not set'}"
    line = f"{key}={value}  # {printable(remark)}" if remark else f"{key}={value}"
    if not remark or (len(line) <= WIDTH and "\n" not in value):
        return [line]
    return [*commented(remark), f"{key}={value}"]
