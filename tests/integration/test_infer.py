"""`python infer.py`: the text that transformers generates, files that survive a kill, chats."""

import json
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from model_distance import load
from peft import PeftModel
from plain_generation import generated
from provoked import limited
from terminal import PATIENCE, chat
from tiny_curriculum import Curriculum, rows, texts
from tiny_model import make_model

SAMPLED = ("--temperature", 1.5, "--seed", 5, "--max-new-tokens", 40, "--batch-size", 2)


@pytest.fixture(scope="module")
def asked(trained: Curriculum, tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """A copy of the trained curriculum with files of questions: of every format, and with references."""
    curriculum = trained.copy_to(tmp_path_factory.mktemp("asked") / "curriculum")
    referenced = rows(9, first=60)
    questions = [
        {"prompt": "Write amber as toml.", "名前": "こはく"},
        {"instruction": "Write as json.", "input": "birch 7, cedar 8"},
        {"messages": referenced[0]["messages"][:-1]},
        {"prompt": "日本語で答えてください。"},
    ]
    curriculum.write_rows("questions.jsonl", questions)
    curriculum.write_rows("referenced.jsonl", referenced)
    curriculum.write_rows("many.jsonl", rows(60, first=80))
    return curriculum


def read(curriculum: Curriculum, name: str) -> list[dict[str, Any]]:
    lines = (curriculum.folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def conversation(row: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" in row:
        return row["messages"]
    question = row.get("prompt") or "\n\n".join([row["instruction"], row["input"]])
    return [{"role": "user", "content": question}]


def test_an_exported_model_answers_as_with_transformers(asked: Curriculum) -> None:
    asked.export.done("--stage", 3, "--to", "exported")
    line = ("--model", "exported", "--input", "questions.jsonl", "--output", "q.jsonl")
    asked.infer.done(*line, "--max-new-tokens", 24)
    folder = asked.folder / "exported"
    model, questions, answered = load(folder), read(asked, "questions.jsonl"), read(asked, "q.jsonl")
    answers = [generated(model, folder, conversation(question)) for question in questions]
    assert [row.pop("answer") for row in answered] == answers
    assert len(set(answers)) > 1
    assert [{**row, "tokens": None, "stopped": None} for row in questions] == [
        {**row, "tokens": None, "stopped": None} for row in answered
    ]
    assert "こはく" in (asked.folder / "q.jsonl").read_text(encoding="utf-8")
    assert not (asked.folder / "q.metrics.json").exists()


def test_a_stage_answers_as_its_adapter_on_its_base(asked: Curriculum, tmp_path: Path) -> None:
    """By its number, and by its folder where the merged base was deleted; merged and not."""
    messages = [{"role": "user", "content": "Write amber as toml."}]
    model = PeftModel.from_pretrained(load(asked.merged_base(3)), asked.stage_dir(3))
    expected = generated(model, asked.stage_dir(3), messages, eos_token_id=2) + "\n"
    asking = ("--prompt", messages[0]["content"], "--max-new-tokens", 24)
    assert asked.infer.done("--stage", 3, *asking) == expected
    copied = asked.copy_to(tmp_path / "copied")
    shutil.rmtree(copied.merged_base(3))
    assert copied.infer.done("--model", "out/lora_stage3", "--adapter", *asking) == expected


def test_rows_with_references_are_scored_and_not_answered_twice(asked: Curriculum) -> None:
    line = ("--stage", 3, "--input", "referenced.jsonl", "--output", "new/scored.jsonl")
    said = asked.infer.done(*line)
    metrics = json.loads((asked.folder / "new/scored.metrics.json").read_text())
    assert metrics["rows_with_reference"] == metrics["metrics"]["gen_samples"] == 9
    assert metrics["task"] == "structured"
    assert "gen_leaf_f1" in said
    before = (asked.folder / "new/scored.jsonl").stat().st_mtime_ns
    assert "holds the answers to all 9 rows: nothing to do" in asked.infer.done(*line)
    assert (asked.folder / "new/scored.jsonl").stat().st_mtime_ns == before
    refused = asked.infer(*line, "--max-new-tokens", 7)
    assert refused.returncode == 2
    assert "max new tokens changed since it was begun" in refused.stderr
    assert "--force" in refused.stderr


def batches_kept(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


def wait_for_batches(process: "subprocess.Popen[bytes]", journal: Path, batches: int) -> None:
    begun = time.monotonic()
    while batches_kept(journal) < batches:
        assert process.poll() is None
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.002)


def test_a_killed_run_goes_on_to_the_same_bytes(asked: Curriculum) -> None:
    """Sampled answers, so that every batch has to be the same one with the same seed."""
    line = ("--stage", 2, "--input", "many.jsonl", *SAMPLED, "--output")
    asked.infer.done(*line, "whole.jsonl")
    output, journal = asked.folder / "killed.jsonl", asked.folder / "killed.journal.jsonl"
    with asked.infer.begun(*line, output, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for_batches(process, journal, 18)
        process.kill()
    whole, part = (asked.folder / "whole.jsonl").read_bytes(), output.read_bytes()
    assert 0 < len(part) < len(whole)
    assert whole.startswith(part)
    output.write_bytes(part[:-20])  # as if it had been killed in the middle of a line
    asked.infer.done(*line, output)
    assert output.read_bytes() == whole


def test_ctrl_c_keeps_what_is_done(asked: Curriculum) -> None:
    line = ("--stage", 2, "--input", "many.jsonl", *SAMPLED, "--output", "interrupted.jsonl")
    with asked.infer.begun(
        *line, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ) as process:
        wait_for_batches(process, asked.folder / "interrupted.journal.jsonl", 3)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 130
    assert re.search(
        r"\d+ of 60 rows are answered; the same command goes on from there\ninterrupted\n$", said
    )
    assert "Traceback" not in said
    assert batches_kept(asked.folder / "interrupted.journal.jsonl") >= 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--stage", 1, "--input", "bad.jsonl"), ("bad.jsonl#1", "bad.jsonl#2", "a question that is not")),
        (("--stage", 7, "--input", "questions.jsonl"), ("stage7.env", "stage1.env, stage2.env, stage3.env")),
        (("--model", "out/lora_stage1", "--base", "wide", "--input", "questions.jsonl"), ("fits", "--base")),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(
    asked: Curriculum, tmp_path: Path, arguments: tuple[object, ...], says: tuple[str, ...]
) -> None:
    asked.write_rows("bad.jsonl", [{"prompt": "q"}, {"prompt": ""}, {"text": "plain"}])
    if "wide" in arguments:
        make_model(asked.folder / "wide", texts(), hidden=96)
    result = asked.infer(*arguments, "--output", tmp_path / "out.jsonl")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert [part for part in says if part not in result.stderr] == [], result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_chat_in_a_terminal(asked: Curriculum) -> None:
    model = PeftModel.from_pretrained(load(asked.merged_base(3)), asked.stage_dir(3))
    said = [{"role": "user", "content": "Write amber as toml."}]
    first = generated(model, asked.stage_dir(3), said, eos_token_id=2)
    said += [{"role": "assistant", "content": first}, {"role": "user", "content": "日本語で、\nもう一度。"}]
    second = generated(model, asked.stage_dir(3), said, eos_token_id=2)
    with chat(asked, "--stage", 3, "--max-new-tokens", 24) as terminal:
        terminal.until("> ")
        terminal.type("Write amber as toml.\n")
        terminal.until("toml.\n")
        assert terminal.until("\n  (cut off after 24 tokens") == first
        terminal.type('"""日本語で、\n')
        terminal.until("… ")
        terminal.type('もう一度。"""\n')
        terminal.until('度。"""\n')
        assert terminal.until("\n  (cut off after 24 tokens") == second
        terminal.until("> ")
        assert "\x1b[?2004h" in terminal.raw, "the terminal is not asked to mark what is pasted"
        terminal.type("\x1b[200~Two\nlines.\x1b[201~\n")  # as it marks it
        terminal.until("lines.\n")
        terminal.until("(cut off after 24 tokens")
        terminal.type("/help\n")
        assert "cut off" not in terminal.until("/system [TEXT]"), "each line was a message"
        terminal.type("/system be brief\n")
        terminal.until("(a new conversation)")
        terminal.until("> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.press_ctrl_c_until("(Ctrl-D leaves)")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.process.wait(timeout=PATIENCE) == 0


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(asked: Curriculum) -> None:
    """An answer of 400 tokens that nothing but Ctrl-C ends soon."""
    with chat(asked, "--stage", 0, "--max-new-tokens", 400, "--temperature", 3) as terminal:
        terminal.until("> ")
        terminal.type("talk\n")
        terminal.until("talk\n")
        terminal.until(" ")
        terminal.type("\x03")
        terminal.until("(stopped)")
        terminal.until("> ")
        terminal.type("/exit\n")
        assert terminal.process.wait(timeout=PATIENCE) == 0


@pytest.mark.slow
def test_a_failure_is_explained_and_the_same_command_goes_on(asked: Curriculum) -> None:
    """A disk that takes 6 kB: less than the answers, more than the log."""
    line = ("--stage", 1, "--input", "many.jsonl", "--output", "full.jsonl", "--max-new-tokens", 20)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    limit = limited(resource.RLIMIT_FSIZE, 6000)
    with asked.infer.begun(*line, preexec_fn=limit, **pipes) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, out + err
    assert "infer.py failed: disk full\n    remedy:   free some space" in err
    assert err.endswith("    log:      full.jsonl.failure.log\n")
    assert "Traceback" not in err
    log = asked.folder / "full.jsonl.failure.log"
    assert "Traceback (most recent call last):" in log.read_text()
    asked.infer.done(*line)
    assert len(read(asked, "full.jsonl")) == 60
    assert not log.exists()
