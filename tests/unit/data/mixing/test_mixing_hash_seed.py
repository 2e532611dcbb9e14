"""The same mix in another process, where Python's own hashes and so the order of its sets are others."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PLAN = """
import random
from lib.data.mixing.amounts import Algebra
from lib.data.mixing.mixture import plan_mixture
from lib.data.mixing.negatives import NegativeRule
from lib.data.mixing.replay import ReplayPool, ReplaySource
from lib.data.reading.rows import to_example
from lib.data.reading.usable_rows import SourceRows

chance = random.Random(7)
for trial in range(30):
    def row(name, i):
        labels = {"task": f"t{i % 3}", "type": f"y{i % 2}"}
        return to_example({"prompt": "q", "completion": str(chance.randrange(40)), **labels}, name, i)

    tables = [
        SourceRows(name, chance.uniform(0.2, 3), tuple(row(name, i) for i in range(chance.randrange(4, 40))))
        for name in ("変換", "b", "c")
    ]
    old = ReplaySource.of(1, "old", tables[2].examples)
    made = plan_mixture(
        tables[:2], val_ratio=0.1, seed=trial, rules={"t0": 2.5, "y1": 0.5}, algebra=Algebra(total_size=50),
        negatives=NegativeRule({"*": 0.4}, frozenset({"y1"})), replay=ReplayPool(0.2, (old,)),
    )
    print([row.row_id for row in made.train], [row.row_id for row in made.validation], made.ledger)
"""


def test_the_order_of_sets_decides_nothing() -> None:
    def planned(hash_seed: int) -> str:
        environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PLAN], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first, second = planned(1), planned(2)
    assert first.count("\n") == 30
    assert first == second
