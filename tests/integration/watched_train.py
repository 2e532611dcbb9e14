"""train.py, which also writes down every row that it trains on: `rows-of-rank-R.jsonl` in the working folder.

A script of its own, so that worker processes, which run the same script, write theirs.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402 (found by the line above)


def watch(stage_trainer: Any) -> None:
    step = stage_trainer.training_step
    path = Path(f"rows-of-rank-{os.environ.get('RANK', '0')}.jsonl")

    def watched(self: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        lengths = inputs["cu_seq_lens_q"].diff().tolist()  # rows stand one after another, without padding
        with path.open("a", encoding="utf-8") as file:
            for row in inputs["input_ids"][0].split(lengths):
                file.write(json.dumps(row.tolist()) + "\n")
        return step(self, model, inputs, *rest)

    stage_trainer.training_step = watched


def run_stage(*arguments: Any, **options: Any) -> None:
    from lib.training.stage_trainer import StageTrainer  # not before the command has set up its environment

    watch(StageTrainer)
    plain_run_stage(*arguments, **options)


if __name__ == "__main__":
    plain_run_stage, train.run_stage = train.run_stage, run_stage
    sys.exit(train.main())
