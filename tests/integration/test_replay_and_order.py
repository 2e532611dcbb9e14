"""A stage that replays earlier ones in an order of its own, with the real command."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_curriculum import Curriculum
from train_command import TrainCommand

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.reading.rows import to_example

WATCHED = Path(__file__).with_name("watched_train.py")
TWO_PROCESSES = ("--nproc", 2, "--set", "SFT_ZERO_STAGE=0")


@pytest.fixture
def curriculum(trained: Curriculum, tmp_path: Path) -> Curriculum:
    copied = trained.copy_to(tmp_path / "copy")
    rules = {"SFT_USE_UPSAMPLING": 1, "SFT_UPSAMPLE_RULES": '{"yaml": 1.5}'}
    copied.set(3, SFT_REPLAY=0.25, SFT_ORDER="length", SFT_EPOCHS=1.5, **rules)
    return copied


def test_plan_and_run_of_a_replaying_stage_agree_with_the_rows_of_its_batches(curriculum: Curriculum) -> None:
    """Rules, replay, an epoch and a half, an order, two processes with full batches."""
    (plan,) = curriculum.plans(3, *TWO_PROCESSES)
    assert "SFT_REPLAY changed from 0 to 0.25" in plan["reasons"]
    TrainCommand(curriculum.folder, WATCHED).done("--stage", 3, *TWO_PROCESSES)
    record = curriculum.record(3)
    ledger = record["data"]["ledger"]
    assert plan["ledger"] == ledger
    assert plan["steps"] == record["training"]["steps"] == ledger["steps"]
    replayed = [line for line in ledger["sources"] if line["replay_of"]]
    assert [line["id"] for line in replayed] == [
        "stage 1: general.jsonl",
        "stage 2: general.jsonl",
        "stage 2: toml.jsonl",
    ]
    own = sum(line["upsampled"] for line in ledger["sources"] if not line["replay_of"])
    assert ledger["replayed"] == int(own / 3 + 0.5)
    assert "complete" in curriculum.status()[2]

    rows = rows_of_batches(curriculum)
    assert ledger["trained"] == sum(line["trained"] for line in ledger["sources"]) == len(rows)
    of_file: Counter[str] = Counter()
    for line in ledger["sources"]:  # a row of stage 2's TOML may be the stage's own or a replayed one
        of_file[line["id"].rpartition(" ")[2]] += line["trained"]
    assert Counter(name for name, _ in rows) == of_file
    of_format = Counter(row["metadata"]["format"] for _, row in rows)
    assert of_format == {
        line["value"]: line["trained"] for line in ledger["labels"] if line["field"] == "format"
    }
    assert not {row["messages"][0]["content"] for _, row in rows} & evaluated_questions(curriculum)


def rows_of_batches(curriculum: Curriculum) -> list[tuple[str, dict[str, Any]]]:
    """File and row of everything that both processes trained on, found by its tokens."""
    chat = ChatFormat.load(curriculum.stage_dir(1))
    assert chat is not None
    rules = EncodingRules(256, True, ("Output:",), "from_marker")
    known = {}
    for name in ("general.jsonl", "toml.jsonl", "hard.jsonl"):
        lines = (curriculum.folder / name).read_text(encoding="utf-8").splitlines()
        read = [json.loads(line) for line in lines]
        encoded = chat.encode([to_example(row, name, i) for i, row in enumerate(read)], rules).rows
        known |= {tuple(row.input_ids): (name, row_) for row, row_ in zip(encoded, read, strict=True)}
    files = [curriculum.folder / f"rows-of-rank-{rank}.jsonl" for rank in (0, 1)]
    return [known[tuple(json.loads(line))] for file in files for line in file.read_text().splitlines()]


def evaluated_questions(curriculum: Curriculum) -> set[str]:
    """Prompts that any stage is evaluated on."""
    sets = [json.loads((curriculum.stage_dir(n) / "evaluation_set.json").read_text()) for n in (1, 2, 3)]
    return {row["messages"][0]["content"] for kept in sets for row in kept["examples"]}


def test_replayed_data_that_changed_is_named_before_anything_is_loaded(curriculum: Curriculum) -> None:
    with (curriculum.folder / "general.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "new", "completion": "Output: new"}\n')
    result = curriculum.command("--stage", 3, "--plan")
    assert result.returncode == 2
    assert "stage 1: general.jsonl: SFT_REPLAY" in result.stderr
    assert "Traceback" not in result.stderr
