"""train.py, which says after each stage how many values models of it still hold: run by a launcher."""

import gc
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import lib.commands.stage_steps as steps  # noqa: E402

original = steps.announce


def announce(*call: Any) -> Any:
    """At the beginning of a stage: its processes have joined, its model is not loaded yet."""
    from transformers import PreTrainedModel

    alive = [kept for kept in gc.get_objects() if isinstance(kept, PreTrainedModel)]
    print(f"models in memory: {len(alive)}", flush=True)
    return original(*call)


steps.announce = announce
sys.argv[0] = str(ROOT / "train.py")
runpy.run_path(sys.argv[0], run_name="__main__")
