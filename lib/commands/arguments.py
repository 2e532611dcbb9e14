"""Options of `python train.py` and `python export.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The options, with argparse's own exit code 2 for what is wrong with them."""
    parser = _parser(description)
    add = parser.add_argument
    add("--stage", metavar="N", help="a stage number, a range (1-3) or all")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the stage file (repeatable)",
    )
    add(
        "--nproc",
        type=int,
        metavar="N",
        help="processes on this machine (default: one per visible GPU, else 1)",
    )
    add("--force", action="store_true", help="run stages again that are complete and up to date")
    add(
        "--evaluate-only",
        action="store_true",
        help="score finished stages again, without training; stage 0 is the untouched base",
    )
    add("--plan", action="store_true", help="print what would run, and stop; loads no torch")
    add(
        "--show-mask",
        type=int,
        default=0,
        metavar="N",
        help="with --plan: N training rows with the learned tokens marked",
    )
    add("--status", action="store_true", help="print where every stage stands, one line each")
    add("--json", action="store_true", help="with --plan or --status: for machines")
    options = parser.parse_args(arguments)
    if not (options.status or options.stage):
        parser.error("say which stage: --stage N, --stage 1-3 or --stage all (or ask for --status)")
    if options.evaluate_only and (options.plan or options.force):
        parser.error("--evaluate-only goes with neither --plan nor --force")
    if options.show_mask and not options.plan:
        parser.error("--show-mask belongs to --plan")
    if options.json and not (options.plan or options.status):
        parser.error("--json belongs to --plan or --status")
    return options


def parse_export(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Options of `python export.py`."""
    parser = _parser(description)
    add = parser.add_argument
    add("--stage", required=True, type=int, metavar="N", help="the last stage that goes into the model")
    add("--to", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    add(
        "--adapter-only",
        action="store_true",
        help="one adapter with the updates of all stages, instead of a whole model",
    )
    add("--force", action="store_true", help="replace a model or adapter that DIR holds")
    return parser.parse_args(arguments)


def _parser(description: str) -> argparse.ArgumentParser:
    """With what both commands take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stages-dir",
        type=Path,
        default=Path("stages"),
        metavar="DIR",
        help="folder of the curriculum's stage files",
    )
    return parser


def worker_command(options: argparse.Namespace, stage: int) -> list[str]:
    """The command of one worker process: this stage alone, whatever its state."""
    script = str(Path(sys.argv[0]).resolve())
    overrides = [text for override in options.set for text in ("--set", override)]
    how = "--evaluate-only" if options.evaluate_only else "--force"
    return [script, "--stage", str(stage), "--stages-dir", str(options.stages_dir), *overrides, how]
