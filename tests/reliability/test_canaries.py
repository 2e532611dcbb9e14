"""Canaries: pickles, modules, templates, shell syntax and a token, wherever input can carry them. None fires,
nothing is written elsewhere, nobody is called, and the token turns up nowhere."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from audited_command import ALLOWED_PROGRAMS, Audited
from hostile_curriculum import FOLDER_NAME, SHELL, TEMPLATES, TEXTS, make_hostile_curriculum
from tiny_curriculum import Curriculum

Check = Callable[[Audited, str, dict[str, bytes]], None]


def surroundings(folder: Path) -> tuple[Audited, Curriculum]:
    work = folder / "work"
    work.mkdir()
    (folder / "precious").write_text("not ours")
    curriculum = make_hostile_curriculum(work)
    return Audited(folder, work, (work / FOLDER_NAME, work / "mlruns")), curriculum


def assert_nothing_fired(audited: Audited, said: str, before: dict[str, bytes]) -> None:
    assert audited.fired() == []
    assert audited.snapshot() == before
    assert audited.written_elsewhere() == []
    assert audited.connections() == []
    assert list(audited.events("pickle")) == []
    assert list(audited.events("import")) == []
    assert audited.programs() <= ALLOWED_PROGRAMS.keys()
    assert audited.with_the_token(said) == []


# What each of these does must be seen: else the tests above see nothing either.
HARM = {
    "write": "open('../precious', 'a')",
    "change": "os.remove('../precious')",
    "start": "os.system('true')",
    "talk": "socket.create_connection(('203.0.113.1', 80))",
    "name": "socket.getaddrinfo('example.com', 80)",
    "pickle": "pickle.loads(pickle.dumps(Path('x')))",
    "import": "import canary_module",
}


@pytest.mark.parametrize("kind", HARM)
def test_the_hook_sees_harm(kind: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "precious").touch()
    (tmp_path / "canary_module.py").touch()
    script = tmp_path / "harm"
    lines = ("import os, pickle, socket", "from pathlib import Path", "try:", f"    {HARM[kind]}")
    script.with_suffix(".py").write_text("\n".join((*lines, "except OSError:", "    pass", "")))
    audited = Audited(tmp_path, tmp_path / "work", ())
    assert done(audited, str(script)) == ""
    assert list(audited.events(kind)) != []
    seen = {
        "write": audited.written_elsewhere(),
        "change": audited.written_elsewhere(),
        "talk": audited.connections(),
        "name": audited.connections(),
        "start": audited.programs() - ALLOWED_PROGRAMS.keys(),
    }
    assert seen.get(kind, ["an event"])


def done(audited: Audited, script: str, *arguments: object) -> str:
    result = audited.run(script, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_a_run_on_hostile_input_does_nothing_but_train(tmp_path: Path) -> None:
    """Base, data, env file, names: a plan, a run and the status of it."""
    audited, curriculum = surroundings(tmp_path)
    before = audited.snapshot()
    said = done(audited, "train", "--stage", 1, "--plan", "--show-mask", 12)
    assert "\x1b" not in said
    said += done(audited, "train", "--stage", 1)
    said += done(audited, "train", "--status")
    assert_nothing_fired(audited, said, before)
    stage = curriculum.folder / FOLDER_NAME / "lora_stage1"
    record = json.loads((stage / "stage.json").read_text(encoding="utf-8"))
    assert record["settings"]["MLFLOW_EXPERIMENT_NAME"] == f"canary {SHELL}"
    page = (stage / "report.html").read_text(encoding="utf-8")
    assert all(text not in page for text in TEXTS if "<script>" in text)
    assert "<img src=x" not in page


def test_what_would_run_code_in_a_template_is_refused(tmp_path: Path) -> None:
    audited, curriculum = surroundings(tmp_path)
    (curriculum.folder / "base" / "chat_template.jinja").write_text(TEMPLATES[0])
    before = audited.snapshot()
    result = audited.run("train", "--stage", 1, "--plan")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "unsafe" in result.stderr
    assert_nothing_fired(audited, result.stdout + result.stderr, before)


@pytest.mark.slow
def test_the_whole_way_on_hostile_input(tmp_path: Path) -> None:
    """About a minute and a half on an idle machine: both stages, asked, exported and evaluated again."""
    audited, curriculum = surroundings(tmp_path)
    before = audited.snapshot()
    said = done(audited, "train", "--stage", "all")
    export = tmp_path / "work" / FOLDER_NAME / "exported $(touch fired-by-export)"
    said += done(audited, "export", "--stage", 2, "--to", export)
    answers = tmp_path / "work" / FOLDER_NAME / "answers.jsonl"
    rows = next(path for path in curriculum.folder.glob("rows*/train.jsonl"))
    said += done(audited, "infer", "--stage", 2, "--input", rows, "--output", answers, "--max-new-tokens", 2)
    said += done(audited, "infer", "--model", export, "--prompt", SHELL, "--max-new-tokens", 2)
    said += done(audited, "train", "--stage", 0, "--evaluate-only")
    assert_nothing_fired(audited, said, before)
