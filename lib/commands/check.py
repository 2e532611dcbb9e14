"""`--check`: everything that can be found wrong before the real run, as a table of verdicts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from lib.data.prepare import PLAN_CHARACTERS
from lib.preflight.check import check_stage
from lib.preflight.table import print_checked
from lib.training.processes.launch import prepare_environment
from lib.training.sizing.world import World


def check_stages(options: argparse.Namespace, chosen: Sequence[int], world: World) -> int:
    """Check every chosen stage; 0 where all may run, 2 where anything keeps one from it."""
    prepare_environment(world)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    checked = []
    for number in chosen:
        found = check_stage(
            options.stages_dir,
            number,
            world,
            chosen=chosen,
            overrides=options.set,
            characters=PLAN_CHARACTERS // len(chosen),
            fast=options.fast,
        )
        checked.append(found)
        if not options.json:
            print_checked(found, console)
    if options.json:
        print(json.dumps([found.to_json() for found in checked], indent=2, ensure_ascii=False))
    return 2 if any(found.failed for found in checked) else 0
