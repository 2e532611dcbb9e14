from pathlib import Path

import pytest
from runs_of_threads import places

from lib.settings import InputError
from lib.training.machines import agreement
from lib.training.machines.agreement import OF_A_MACHINE, require_same, software

FOUR = places("a", "a", "b", "b")
FACTS = {"SFT_LR": "1e-4", "torch version": "2.13.0"}


def test_the_same_everywhere_is_no_error() -> None:
    require_same([dict(FACTS) for _ in FOUR], FOUR)


def test_every_difference_is_named_once_a_machine() -> None:
    other = {"SFT_LR": "5e-5", "torch version": "2.13.0", "SFT_SEED": "7"}
    with pytest.raises(InputError) as caught:
        require_same([FACTS, FACTS, other, other], FOUR)
    found = [(p.where, p.key, p.value, p.expected) for p in caught.value.problems]
    assert found == [
        ("b (rank 2)", "SFT_LR", "5e-5", "1e-4, as on a (rank 0)"),
        ("b (rank 2)", "SFT_SEED", "7", "not there, as on a (rank 0)"),
    ]


def test_one_odd_rank_of_a_machine_is_found() -> None:
    with pytest.raises(InputError) as caught:
        require_same([FACTS, {**FACTS, "SFT_LR": "1"}, FACTS, FACTS], FOUR)
    assert [problem.where for problem in caught.value.problems] == ["a (rank 1)"]


def test_software_is_code_python_and_what_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = software()
    assert found["torch version"].startswith("2.13")
    assert {"Python", "this project's code", "deepspeed version", "jinja2 version"} <= found.keys()
    assert found["flash-attn version"] == "not installed" or found["flash-attn version"][0].isdigit()
    assert software() == found
    (tmp_path / "lib").mkdir()
    (tmp_path / "train.py").write_text("other code")
    monkeypatch.setattr(agreement, "ROOT", tmp_path)
    changed = software()
    assert {key for key in found if found[key] != changed[key]} == {"this project's code"}


def test_what_a_machine_may_have_otherwise_is_a_setting() -> None:
    from lib.settings.reference import reference

    assert all(key in reference() for key in OF_A_MACHINE)
