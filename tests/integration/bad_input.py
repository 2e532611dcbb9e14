"""Ways in which a user's input can be wrong, each with what the command must say about it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiny_curriculum import Curriculum, rows


@dataclass(frozen=True)
class Case:
    """`prepare` spoils a fresh curriculum; `says` are parts of what must stand on stderr."""

    name: str
    says: tuple[str, ...]
    prepare: Callable[[Curriculum], Any] = lambda curriculum: None
    arguments: Sequence[object] = field(default=("--stage", 1))


def keys(**values: object) -> Callable[[Curriculum], None]:
    return lambda curriculum: curriculum.set(1, **values)


def data(content: Sequence[dict[str, Any]]) -> Callable[[Curriculum], None]:
    """The stage's data set holds these rows."""

    def prepare(curriculum: Curriculum) -> None:
        curriculum.write_rows("spoilt.jsonl", content)
        curriculum.set(1, SFT_DATASET_ID="spoilt.jsonl")

    return prepare


def appended(line: str) -> Callable[[Curriculum], None]:
    def prepare(curriculum: Curriculum) -> None:
        with curriculum.stage_file(1).open("a") as file:
            file.write(line + "\n")

    return prepare


def mix(*entries: dict[str, object]) -> Callable[[Curriculum], None]:
    return keys(SFT_DATASET_MIX=json.dumps(entries))


def broken_line(curriculum: Curriculum) -> None:
    data([])(curriculum)
    (curriculum.folder / "spoilt.jsonl").write_text(json.dumps(rows(1)[0]) + '\n{"messages": [\n')


def answered(answer: str) -> list[dict[str, Any]]:
    """Rows whose answers are all the same text."""
    return [
        {**row, "messages": [row["messages"][0], {"role": "assistant", "content": answer}]} for row in rows(6)
    ]


# Found while settings are read: no data is opened, and torch is never loaded.
SETTINGS = (
    Case("unknown key", ("stage1.env:", "SFT_EPOCHSS", "Did you mean SFT_EPOCHS?"), keys(SFT_EPOCHSS=3)),
    Case("name of another trainer", ("Did you mean SFT_LR?",), keys(SFT_LEARNING_RATE=1e-3)),
    Case("wrong type", ("SFT_LORA_R", "four", "a whole number"), keys(SFT_LORA_R="four")),
    Case("out of range", ("SFT_VAL_RATIO", "1.5", "below 1"), keys(SFT_VAL_RATIO=1.5)),
    Case(
        "several at once",
        ("SFT_LR", "fast", "SFT_EPOCHS", "-1", "SFT_LORA_R", "zero", "SFT_SEEED", "Did you mean SFT_SEED?"),
        keys(SFT_LR="fast", SFT_EPOCHS=-1, SFT_LORA_R="zero", SFT_SEEED=1),
    ),
    Case("broken mix", ("SFT_DATASET_MIX", "JSON", "double quotes"), keys(SFT_DATASET_MIX='[{"id": ')),
    Case("weight of zero", ("SFT_DATASET_MIX", "above 0"), mix({"id": "general.jsonl", "weight": 0})),
    Case("weight below zero", ("above 0", "entry 2"), mix({"id": "a"}, {"id": "b", "weight": -1})),
    Case("unknown key in the mix", ("Did you mean weight?",), mix({"id": "general.jsonl", "wieght": 2})),
    Case("missing env file", ("stage7.env", "stage1.env, stage2.env, stage3.env"), arguments=("--stage", 7)),
    Case("malformed line", ("stage1.env:", "KEY=VALUE", "#"), appended("this is no setting")),
    Case("open quote", ("stage1.env:", "SFT_X", "Close the quote"), appended("SFT_X='never closed")),
    Case("duplicate key", ("SFT_LR", "every key once", "Delete line"), appended("SFT_LR=1")),
    Case("missing key", ("SFT_BASE_MODEL", "no default"), lambda c: c.unset(1, "SFT_BASE_MODEL")),
    Case("word for a stage", ("--stage", "two", "all"), arguments=("--stage", "two")),
    Case("range backwards", ("--stage", "3-1", "a range (1-3)"), arguments=("--stage", "3-1")),
    Case("stage zero", ("--stage", "0", "a stage number"), arguments=("--stage", 0)),
    Case("--set without =", ("--set", "SFT_LR=VALUE"), arguments=("--stage", 1, "--set", "SFT_LR")),
    Case(
        "--set of an unknown key",
        ("--set", "SFT_LRR", "Did you mean SFT_LR?"),
        arguments=("--stage", 1, "--set", "SFT_LRR=1"),
    ),
    Case("no process", ("--nproc", "0", "at least 1"), arguments=("--stage", 1, "--nproc", 0)),
    Case("unknown option", ("--stge",), arguments=("--stge", 1)),
    Case("no stage", ("--stage",), arguments=()),
    Case(
        "missing folder of stages",
        ("nowhere", "--stages-dir"),
        arguments=("--stage", 1, "--stages-dir", "nowhere"),
    ),
)
# Found once data, tokenizer and earlier stages are looked at: by the plan, and by the run before it writes.
CONTENT = (
    Case("missing data file", ("absent.jsonl", "exists"), keys(SFT_DATASET_ID="./absent.jsonl")),
    Case("empty data set", ("spoilt.jsonl", "0 rows", "at least one row"), data([])),
    Case("broken line", ("spoilt.jsonl:2", "JSON", "mend or remove it"), broken_line),
    Case("no usable row", ("spoilt.jsonl#0", "columns question", "messages"), data([{"question": "?"}] * 3)),
    Case(
        "every row masked",
        ("spoilt.jsonl", "0 of", "without a learned token", "SFT_OUTPUT_MARKERS"),
        data(answered("Approach: think.\n\nOutput:\n")),
    ),
    Case("every row too long", ("SFT_MAX_SEQ_LEN", "too long", "raise"), keys(SFT_MAX_SEQ_LEN=8)),
    Case(
        "unknown template",
        ("SFT_CHAT_TEMPLATE", "chatlm", "Did you mean chatml?"),
        keys(SFT_CHAT_TEMPLATE="chatlm"),
    ),
    Case(
        "rule that matches nothing",
        ("SFT_UPSAMPLE_RULES", '"tmol" matches no row', "toml (", "Did you mean toml?"),
        keys(SFT_USE_UPSAMPLING=1, SFT_UPSAMPLE_RULES='{"tmol": 2}'),
    ),
    Case(
        "output below a file",
        ("SFT_OUT_LORA_DIR", "general.jsonl is not a folder", "choose another folder"),
        keys(SFT_OUT_LORA_DIR="general.jsonl/lora"),
    ),
    Case(
        "missing earlier adapter",
        ("stage2.env", "lora_stage1", "python train.py --stage 1 first", "SFT_STRICT=0"),
        arguments=("--stage", 2),
    ),
    Case("missing base", ("SFT_BASE_MODEL", "absent-model"), keys(SFT_BASE_MODEL="./absent-model")),
)
