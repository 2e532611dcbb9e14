"""`--import-config`: a stage file from another trainer's YAML, and what the user has to look at."""

import argparse
import shlex

from lib.importing import ImportedStage, import_config
from lib.settings.env_text import quoted
from lib.settings.errors import printable


def show_import(options: argparse.Namespace) -> int:
    """Writes the stage file and says what differs, what is missing and what comes next."""
    print(*_report(import_config(options.import_config, options.to)), sep="\n")
    return 0


def _report(stage: ImportedStage) -> list[str]:
    draft = stage.draft
    lines = [
        f"{stage.path}: {len(draft.settings)} settings from a configuration of {stage.trainer}; it loads"
    ]
    differing = list(draft.differing())
    if differing:
        lines.append("the same word, another meaning (marked DIFFERS in the file):")
    for key, carried in differing:
        value = "…" if "\n" in carried.text else quoted(carried.text)
        lines += [f"  {key}={value}  from {carried.source}", f"    {carried.differs}"]
    if draft.not_carried:
        lines.append("not carried over:")
    for entry in draft.not_carried:
        lines += [f"  {entry.key}: {entry.value}", f"    {entry.advice}"]
    if draft.not_needed:
        lines.append(f"nothing to do: {', '.join(draft.not_needed)}")
    lines += stage.notices
    folder = shlex.quote(str(stage.path.parent))
    lines += [
        "next:",
        f"  python train.py --stages-dir {folder} --stage 1 --plan --show-mask 3",
        "  docs/migrating.md has every key",
    ]
    return [printable(line) for line in lines]
