"""A curriculum of three small stages in a folder of its own, and ways to look at what it leaves."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train_command import EXPORT, INFER, SECRET, TrainCommand

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")
STAGES = (1, 2, 3)
MIX = [{"id": "general.jsonl"}, {"id": "toml.jsonl", "weight": 2.0}]
# A run of a few seconds, strict. Paths are relative: the folder can be copied and is still up to date.
COMMON: dict[str, object] = {
    "HF_TOKEN": SECRET,
    "SFT_STRICT": 1,
    "SFT_OUT_LORA_DIR": "out/lora",
    "SFT_CACHE_DIR": "cache",
    "SFT_VAL_RATIO": 0.2,
    "SFT_MAX_SEQ_LEN": 256,
    "SFT_LORA_R": 4,
    "SFT_LORA_ALPHA": 8,
    "SFT_LORA_DROPOUT": 0,
    "SFT_MAX_STEPS": 4,
    "SFT_EPOCHS": 1,
    "SFT_PER_DEVICE_TRAIN_BS": 2,
    "SFT_PER_DEVICE_EVAL_BS": 4,
    "SFT_GRAD_ACCUM": 1,
    "SFT_LOGGING_STEPS": 1,
    "SFT_EVAL_STEPS": 2,
    "SFT_SAVE_STEPS": 2,
    "SFT_SAVE_TOTAL_LIMIT": 2,
    "SFT_EARLY_STOPPING_PATIENCE": 0,
    "SFT_GEN_EVAL_SAMPLES": 4,
    "SFT_GEN_EVAL_MAX_NEW_TOKENS": 6,
    "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db",
}
OWN: dict[int, dict[str, object]] = {
    1: {
        "SFT_DATASET_ID": "general.jsonl",
        "SFT_LORA_DROPOUT": 0.05,
        "SFT_LR": 5e-3,
        "SFT_GEN_EVAL_BEFORE": 1,
    },
    2: {
        "SFT_DATASET_MIX": json.dumps(MIX),
        "SFT_USE_UPSAMPLING": 1,
        "SFT_UPSAMPLE_RULES": '{"toml": 1.5}',
        "SFT_MAX_STEPS": 5,
        "SFT_LR": 3e-3,
        "MLFLOW_EXPERIMENT_NAME": "weak-formats",
    },
    3: {
        "SFT_DATASET_IDS": "hard.jsonl,toml.jsonl",
        "SFT_OUTPUT_LEARN_MODE": "from_marker",
        "SFT_MAX_STEPS": -1,
        "SFT_PER_DEVICE_TRAIN_BS": 4,
        "SFT_LR": 1e-3,
    },
}


@dataclass(frozen=True)
class Curriculum:
    """A folder with stage files, data and output, and the command that works in it."""

    folder: Path

    @property
    def command(self) -> TrainCommand:
        return TrainCommand(self.folder)

    @property
    def export(self) -> TrainCommand:
        return TrainCommand(self.folder, EXPORT)

    @property
    def infer(self) -> TrainCommand:
        return TrainCommand(self.folder, INFER)

    def stage_dir(self, stage: int) -> Path:
        return self.folder / f"out/lora_stage{stage}"

    def merged_base(self, stage: int) -> Path:
        return self.folder / f"out/lora_stage{stage}_merged_base"

    def record(self, stage: int) -> dict[str, Any]:
        return json.loads((self.stage_dir(stage) / "stage.json").read_text(encoding="utf-8"))

    def train(self, stage: object, *arguments: object) -> str:
        """Standard output of a run that must succeed."""
        return self.command.done("--stage", stage, *arguments)

    def plans(self, stage: object, *arguments: object) -> list[dict[str, Any]]:
        """What `--plan --json` says."""
        return json.loads(self.train(stage, "--plan", "--json", *arguments))

    def status(self) -> list[str]:
        """The lines of `--status`."""
        return self.command.done("--status").splitlines()

    def stage_file(self, stage: int) -> Path:
        return self.folder / f"stages/stage{stage}.env"

    def set(self, stage: int, **keys: object) -> None:
        """Give keys of a stage file other values."""
        path = self.stage_file(stage)
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in keys]
        path.write_text("\n".join([*kept, *(f"{key}='{value}'" for key, value in keys.items())]) + "\n")

    def unset(self, stage: int, key: str) -> None:
        path = self.stage_file(stage)
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] != key]
        path.write_text("\n".join(kept) + "\n")

    def write_rows(self, name: str, content: Sequence[Mapping[str, Any]]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")

    def left_behind(self) -> list[str]:
        """What runs have written, relative to the folder."""
        made = [path for name in ("out", "mlruns") for path in (self.folder / name).rglob("*")]
        return sorted(str(path.relative_to(self.folder)) for path in made)

    def copy_to(self, folder: Path) -> "Curriculum":
        """The same curriculum elsewhere, with everything that it has trained."""
        shutil.copytree(self.folder, folder)
        return Curriculum(folder)


def make_curriculum(folder: Path, base: Path) -> Curriculum:
    """Stage files over a general set, a mix with a weighted TOML set, and hard cases."""
    (folder / "stages").mkdir(parents=True)
    curriculum = Curriculum(folder)
    curriculum.write_rows("general.jsonl", rows(20))
    curriculum.write_rows("toml.jsonl", rows(8, formats=("toml",), first=20))
    curriculum.write_rows("hard.jsonl", rows(12, formats=("yaml", "toml"), first=30))
    for stage in STAGES:
        curriculum.stage_file(stage).write_text("# a tiny stage\n")
        curriculum.set(stage, SFT_BASE_MODEL=base, **{**COMMON, **OWN[stage]})
    return curriculum


def rows(
    count: int,
    *,
    formats: Sequence[str] = ("json", "yaml", "toml"),
    first: int = 0,
    entries: Sequence[int] = (1, 2, 3, 4),
) -> list[dict[str, Any]]:
    """`count` different conversations with a plan, an output marker and labels; answers of one to four
    entries in turn, so that a mean over batches is not the mean over tokens."""
    return [
        _row(number, formats[number % len(formats)], entries[number % len(entries)])
        for number in range(first, first + count)
    ]


def _row(number: int, format_name: str, entries: int) -> dict[str, Any]:
    document = {WORDS[(number + step) % len(WORDS)]: number * 7 % 50 + step for step in range(entries)}
    answer = {
        "json": json.dumps(document),
        "yaml": "\n".join(f"{key}: {value}" for key, value in document.items()),
        "toml": "\n".join(f"{key} = {value}" for key, value in document.items()),
    }[format_name]
    return {
        "messages": [
            {"role": "user", "content": f"Write {document} as {format_name}."},
            {"role": "assistant", "content": f"Approach:\n1. Keep the order.\n\nOutput:\n{answer}"},
        ],
        "metadata": {"format": format_name, "complexity": "simple"},
    }


def texts() -> list[str]:
    """Every text of the data, for the tokenizer."""
    return [message["content"] for row in rows(42) for message in row["messages"]]
