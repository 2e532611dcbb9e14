"""Does a suggestion, followed, raise the weakest label? On the embedded curriculum, against a control.

    python docs/figures/suggestion.py [--after 1] [--schemas training] [--steps 64] [--seeds 3407 1 2]

Trains the embedded stages up to `--after`, scores the last one on rows made for that, asks `--suggest` for
the next stage, and trains it twice for each seed: as proposed, and with the same number of steps without the
rules. Both answer other new rows, most of them of the weakest label. New rows are about the training schemas,
or about those that no training row has (`--schemas held-out`). Prints numbers for docs/log.md; intervals of
differences are 95 %, bootstrap over rows, each row with both of its answers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.formats import FORMATS  # noqa: E402 (found by the line above)
from data.make_data import DataSet, make_set  # noqa: E402
from data.schemas import HELD_OUT, TRAINING  # noqa: E402

SCHEMAS = {"training": TRAINING, "held-out": HELD_OUT}
HARD_SHARE = 0.25
RULES = ("SFT_USE_UPSAMPLING", "SFT_UPSAMPLE_RULES")
Tally = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/suggestion"))
    parser.add_argument("--after", type=int, default=1, help="the stage whose scores decide")
    parser.add_argument("--schemas", choices=SCHEMAS, default="training")
    parser.add_argument("--seeds", type=int, nargs="+", default=(3407, 1, 2))
    parser.add_argument("--steps", type=int, help="of the proposed stage; default: as its file says")
    parser.add_argument("--rows", type=int, default=500, help="of each of the two sets")
    options = parser.parse_args()
    work, number = options.work.resolve(), options.after + 1
    print(f"load before: {os.getloadavg()[0]:.1f}")
    seen = prepare(work, options.after)
    train(work, f"1-{options.after}" if options.after > 1 else 1)
    made(work / "choose.jsonl", dict.fromkeys(FORMATS, 20), options, seen)
    evaluated = scored_on(work / "choose.jsonl", options.rows)
    train(work, options.after, "--evaluate-only", *evaluated)
    run(work, "--suggest", number)
    proposal = (work / f"stages/stage{number}.suggested.env").read_text(encoding="utf-8")
    weakest = rule_of(proposal)
    made(work / "judge.jsonl", {name: 60 if name == weakest else 10 for name in FORMATS}, options, seen)
    length = ["--set", f"SFT_MAX_STEPS={options.steps}"] if options.steps else []
    for seed in options.seeds:
        for arm, text in (("proposal", proposal), ("control", without_rules(proposal, work, options.after))):
            (work / f"stages/stage{number}.env").write_text(text, encoding="utf-8")
            judged = scored_on(work / "judge.jsonl", options.rows)
            train(work, number, "--force", "--set", f"SFT_SEED={seed}", *length, *judged)
            (work / f"output/conversion_stage{number}").rename(work / f"{arm}-{seed}")
        compare(work, weakest, seed)
    print(f"load after: {os.getloadavg()[0]:.1f}")


def prepare(work: Path, after: int) -> set[str]:
    """A folder in which the embedded stage files run as they are; the prompts that they know."""
    (work / "stages").mkdir(parents=True)  # fails where an earlier run has left something
    for name in ("data", "assets"):
        (work / name).symlink_to(ROOT / name)
    for number in range(1, after + 1):
        text = (ROOT / f"stages/stage{number}.env").read_text(encoding="utf-8")
        (work / f"stages/stage{number}.env").write_text(text, encoding="utf-8")
    lines = (line for path in (ROOT / "data").glob("*.jsonl") for line in path.open(encoding="utf-8"))
    return {json.loads(line)["messages"][1]["content"] for line in lines}


def made(path: Path, weights: dict[str, int], options: argparse.Namespace, seen: set[str]) -> None:
    data_set = DataSet(path.stem, options.rows, weights, HARD_SHARE, SCHEMAS[options.schemas])
    rows = make_set(random.Random(path.stem), data_set, seen)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def scored_on(path: Path, rows: int) -> list[object]:
    keys = {"SFT_GEN_EVAL_DATASET_ID": path, "SFT_GEN_EVAL_SAMPLES": rows, "SFT_GEN_EVAL_EVERY": 0}
    given = [f"{key}={value}" for key, value in {**keys, "SFT_GEN_EVAL_BEFORE": 0}.items()]
    return [part for text in given for part in ("--set", text)]


def train(work: Path, stage: object, *arguments: object) -> None:
    run(work, "--stage", stage, *arguments)


def run(work: Path, *arguments: object) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    command = [sys.executable, ROOT / "train.py", *arguments]
    subprocess.run([*map(str, command)], cwd=work, env=environ, check=True)


def rule_of(proposal: str) -> str:
    """The label that the proposal raises most."""
    line = next((line for line in proposal.splitlines() if line.startswith(RULES[1])), "")
    if not line:
        raise SystemExit("no label is behind: give more --rows, or there is nothing to raise")
    rules = json.loads(line.partition("=")[2].partition("  #")[0].strip("'"))
    return str(max(rules, key=rules.__getitem__))


def without_rules(proposal: str, work: Path, after: int) -> str:
    """The stage before once more: its rules and its size."""
    before = (work / f"stages/stage{after}.env").read_text(encoding="utf-8").splitlines()
    keys = (*RULES, "SFT_DATASET_MIX_TOTAL_SIZE")
    kept = [line for line in proposal.splitlines() if not line.startswith(keys)]
    return "\n".join([*kept, *(line for line in before if line.startswith(keys))]) + "\n"


def compare(work: Path, label: str, seed: int) -> None:
    """Leaf F1 of both arms on the rows of the label and on the others."""
    arms = [tallies(work / f"{arm}-{seed}") for arm in ("proposal", "control")]
    for own in (True, False):
        rows = [row for row, (name, _) in arms[0].items() if (name == label) == own]
        sums = np.array([[arm[row][1] for row in rows] for arm in arms])  # arm, row, part
        times = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=2000)
        drawn = np.einsum("sr,arp->asp", times, sums)
        scores, resampled = sums.sum(1), drawn[..., 0] / drawn[..., 1]
        values = scores[:, 0] / scores[:, 1]
        spans = [np.quantile(found, (0.025, 0.975)) for found in (*resampled, resampled[0] - resampled[1])]
        shown = [
            f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"
            for name, value, (low, high) in zip(
                ("proposal", "control", "difference"), (*values, values[0] - values[1]), spans, strict=True
            )
        ]
        print(
            f"seed {seed}, {len(rows)} rows {'of' if own else 'not of'} {label}: {', '.join(shown)}",
            flush=True,
        )


def tallies(folder: Path) -> dict[str, tuple[str, Tally]]:
    """Row → format, and numerator and denominator of its leaf F1."""
    (path,) = folder.glob("gen_metrics_step*.json")
    samples: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["samples"]
    return {row["row"]: (row["labels"]["format"], row["tally"]["gen_leaf_f1"]) for row in samples}


if __name__ == "__main__":
    main()
