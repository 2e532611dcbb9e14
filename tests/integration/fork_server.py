"""Runs `train.py` in forked children that find the heavy libraries imported: starting one takes no time.

Reads a line of JSON for each run, {"arguments", "cwd", "log", "errors", "largest_file"};
answers with the child's process id and, when it has ended, with its exit code (negative: the signal that
killed it).
"""

import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402

HEAVY = (
    "torch", "datasets", "peft", "trl", "mlflow", "sqlalchemy", "alembic", "rich.progress",
    "mlflow.store.tracking.sqlalchemy_store", "lib.model.merge", "lib.model.stage_base",
    "lib.model.merge_probe", "lib.training.trainer", "lib.training.stage_trainer", "lib.training.batches",
    "lib.evaluation.heldout", "lib.report.stage_report", "lib.tracking.tracker", "lib.tracking.callback",
    "transformers.models.qwen3_moe",
)  # fmt: skip


def run(order: dict[str, Any]) -> None:
    """Never returns."""
    os.setsid()
    for stream, name in ((1, "log"), (2, "errors")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(order["cwd"])
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], resource.RLIM_INFINITY))
    sys.argv = [str(ROOT / "train.py"), *order["arguments"]]
    code = 1
    try:
        code = train.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    from importlib import import_module

    for name in HEAVY:
        import_module(name)
    assert threading.active_count() == 1, "a child would inherit locks that nobody opens"
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
