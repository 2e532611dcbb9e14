"""Wrong input through the real command: exit code 2, what is wrong and how to mend it, nothing written."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import CONTENT, SETTINGS, Case
from forked_runs import ForkServer, fork_server
from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_model

MakeCurriculum = Callable[[Path], Curriculum]
Answer = tuple[subprocess.CompletedProcess[str], list[str]]
Answers = dict[tuple[str, str], Answer]
MODES = {"run": (), "plan": ("--plan",)}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Answers:
    """Every case planned and run, each in a folder of its own: result, and what was left behind."""
    folder = tmp_path_factory.mktemp("bad_input")

    def answer(server: ForkServer, case: Case, mode: str) -> Answer:
        curriculum = make_curriculum(folder / f"{case.name} {mode}", tiny_base)
        case.prepare(curriculum)
        result = server.result(curriculum.folder, *case.arguments, *MODES[mode])
        return result, curriculum.left_behind()

    with fork_server() as server:
        return {
            (case.name, mode): answer(server, case, mode) for case in (*SETTINGS, *CONTENT) for mode in MODES
        }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in (*SETTINGS, *CONTENT)])
def test_wrong_input_is_refused_with_its_remedy(case: Case, mode: str, answers: Answers) -> None:
    result, left_behind = answers[case.name, mode]
    assert_refusal(result, *case.says)
    assert left_behind == []


@pytest.mark.parametrize(("case", "mode"), [(SETTINGS[4], "plan"), (CONTENT[4], "run")])
def test_a_command_of_its_own_says_the_same(
    case: Case, mode: str, answers: Answers, tmp_path: Path, tiny_base: Path
) -> None:
    """The others are forked from a process that has imported everything; these start as anybody's."""
    curriculum = make_curriculum(tmp_path / "curriculum", tiny_base)
    case.prepare(curriculum)
    result = curriculum.command(*case.arguments, *MODES[mode])
    forked, _ = answers[case.name, mode]
    assert (result.returncode, result.stderr) == (forked.returncode, forked.stderr)
    assert curriculum.left_behind() == []


def assert_refusal(result: subprocess.CompletedProcess[str], *says: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert [part for part in says if part not in result.stderr] == [], result.stderr
    is_usage = result.stderr.startswith("usage:")
    assert is_usage or "remedy:" in result.stderr


def test_an_adapter_that_does_not_fit_the_base_is_refused(
    trained: Curriculum, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Stage 1 was trained on another base than stage 2 names. Its record is not there: a strict stage refuses
    to build on that alone, a lenient one finds out when it merges."""
    folder = tmp_path_factory.mktemp("misfit")
    curriculum = make_curriculum(folder / "curriculum", make_model(folder / "wider", texts(), hidden=96))
    curriculum.stage_dir(1).mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(trained.stage_dir(1) / name, curriculum.stage_dir(1))
    before = curriculum.left_behind()
    assert_refusal(curriculum.command("--stage", 2, "--plan"), "lora_stage1", "an adapter without stage.json")
    result = curriculum.command("--stage", 2, "--set", "SFT_STRICT=0")
    assert_refusal(result, "lora_stage1", "SFT_BASE_MODEL", "fits the base model")
    assert curriculum.left_behind() == before


def test_a_target_that_the_model_does_not_have_is_refused(
    trained: Curriculum, tmp_path: Path, tiny_base: Path
) -> None:
    """By the configuration: these weights could not be loaded."""
    curriculum = trained.copy_to(tmp_path / "targets")
    base = shutil.copytree(tiny_base, tmp_path / "no weights")
    (base / "model.safetensors").write_bytes(b"no weights")
    before = curriculum.left_behind()
    keys = (f"SFT_BASE_MODEL={base}", "SFT_LORA_TARGET_MODULES=q_proj,banana_proj")
    result = curriculum.command("--stage", 1, *(part for key in keys for part in ("--set", key)))
    assert_refusal(result, "SFT_LORA_TARGET_MODULES", "banana_proj", "gate_up_proj")
    assert curriculum.left_behind() == before
    assert curriculum.record(1) == trained.record(1)


def test_a_lenient_stage_says_what_is_wrong_and_goes_on(
    new_curriculum: MakeCurriculum, tmp_path: Path
) -> None:
    """The documented lines for a broken mix, a data set that fails to load, rows that fit nothing and a
    missing earlier stage; the run goes on with what is there and records what it went without."""
    curriculum = new_curriculum(tmp_path / "lenient")
    with (curriculum.folder / "general.jsonl").open("a") as file:
        file.write('{"question": "fits no format"}\n')
    curriculum.set(
        2,
        SFT_STRICT=0,
        SFT_DATASET_MIX='[{"id": ',
        SFT_DATASET_IDS="./absent.jsonl,general.jsonl",
        SFT_UPSAMPLE_RULES='{"tmol": 2}',
    )
    documented = (
        "[WARNING] Failed to parse DATASET_MIX: ",
        "[WARNING] Previous stage adapter not found at out/lora_stage1, starting from base model",
        "[ERROR] Failed to load ./absent.jsonl",
        "[ERROR] 1 of 21 rows of general.jsonl are unusable",
        '[WARNING] SFT_UPSAMPLE_RULES "tmol" matches no row',
    )
    planned, said = curriculum.train(2, "--plan"), curriculum.train(2)
    record = curriculum.record(2)
    for line in documented:
        assert line in " ".join(planned.split())
        assert line in said
        assert any(notice.startswith(line) for notice in record["notices"])
    assert record["parents"] == []
    assert not record["base"]["merged"]
    assert [source["id"] for source in record["data"]["sources"]] == ["general.jsonl"]
    assert record["data"]["ledger"]["sources"][0]["skipped"] == 1
