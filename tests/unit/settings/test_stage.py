import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.settings import InputError, MixEntry, Problem, StageSettings, list_stages, load_stage
from lib.settings.stage import KEYS

Load = Callable[..., StageSettings]
Refused = Callable[..., tuple[Problem, ...]]

BASE_AND_OUTPUT = "SFT_BASE_MODEL=me/base\nSFT_OUT_LORA_DIR=out/lora\n"


# Where values come from


def test_set_counts_over_environment_over_file_over_default(load: Load) -> None:
    lines = "SFT_LR=1e-5\nSFT_EPOCHS=2\nSFT_LORA_R=8\n"
    environ = {"SFT_EPOCHS": "3", "SFT_LORA_R": "9", "PATH": "/bin", "MLFLOW_TRACKING_URI": "http://host"}
    loaded = load(lines, environ=environ, overrides=["SFT_LORA_R=10"])
    assert (loaded.training.lr, loaded.training.epochs, loaded.lora.rank) == (1e-5, 3.0, 10)
    assert (loaded.training.grad_accum, loaded.tracking.uri) == (8, "http://host")
    assert loaded.origins["SFT_LR"].endswith("stage1.env:4")
    keys = ("SFT_EPOCHS", "SFT_LORA_R", "SFT_GRAD_ACCUM")
    assert [loaded.origins[key] for key in keys] == ["environment", "--set", "default"]
    assert [loaded.values[key] for key in keys] == ["3", "10", "8"]


def test_every_key_has_a_text_and_an_origin(load: Load) -> None:
    loaded = load()
    assert set(loaded.values) == set(loaded.origins) == set(KEYS)


@pytest.mark.parametrize("above", [{"overrides": ["SFT_LORA_R="]}, {"environ": {"SFT_LORA_R": " "}}])
def test_empty_takes_a_key_back_to_its_default(load: Load, above: dict[str, object]) -> None:
    loaded = load("SFT_LORA_R=8\n", **above)
    assert (loaded.lora.rank, loaded.origins["SFT_LORA_R"]) == (16, "default")


def test_the_last_of_two_sets_counts(load: Load) -> None:
    assert load(overrides=["SFT_LORA_R=2", "SFT_LORA_R=4"]).lora.rank == 4


def test_environment_mix_replaces_the_files_data_set(load: Load) -> None:
    loaded = load(environ={"SFT_DATASET_MIX": '[{"id": "b", "weight": 2}]'})
    assert loaded.data.mix == (MixEntry("b", 2.0),)


def test_a_stronger_id_that_a_weaker_mix_overrules_is_said(load: Load) -> None:
    loaded = load('SFT_DATASET_MIX=\'[{"id": "b"}]\'\n', overrides=["SFT_DATASET_ID=c"])
    assert loaded.data.mix == (MixEntry("b", 1.0),)
    (notice,) = loaded.notices
    assert notice.startswith("--set: SFT_DATASET_ID is not used, because SFT_DATASET_MIX is set")
    unset = load('SFT_DATASET_MIX=\'[{"id": "b"}]\'\n', overrides=["SFT_DATASET_ID=c", "SFT_DATASET_MIX="])
    assert (unset.data.mix, unset.notices) == ((MixEntry("c", None),), ())


# What comes out


def test_names_built_from_output_and_stage(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    loaded = load(overrides=["SFT_OUT_LORA_DIR=~/out/lora/"], stage=12)
    assert loaded.stage_dir == Path("/home/me/out/lora_stage12")
    assert loaded.merged_base_dir == Path("/home/me/out/lora_stage12_merged_base")
    assert loaded.tracking.experiment == loaded.values["MLFLOW_EXPERIMENT_NAME"] == "llm-training-stage12"


def test_several_data_sets_are_used_whole(load: Load) -> None:
    loaded = load("SFT_DATASET_IDS=a, b\n", minimal=BASE_AND_OUTPUT)
    assert loaded.data.mix == (MixEntry("a", None), MixEntry("b", None))


def test_japanese_markers_and_switches(load: Load) -> None:
    loaded = load("SFT_OUTPUT_MARKERS=出力:,回答:\nSFT_MASK_COT=off\nSFT_GRADIENT_CHECKPOINTING=true\n")
    assert loaded.data.output_markers == ("出力:", "回答:")
    assert (loaded.data.mask_cot, loaded.model.gradient_checkpointing) == (False, "1")


def test_settings_can_be_copied_pickled_and_turned_into_dicts(load: Load) -> None:
    loaded = load("""SFT_USE_UPSAMPLING=1\nSFT_UPSAMPLE_RULES='{"toml": 3}'\n""")
    assert copy.deepcopy(loaded) == pickle.loads(pickle.dumps(loaded)) == loaded
    assert dataclasses.asdict(loaded)["data"]["upsample_rules"] == {"toml": 3.0}


def test_passwords_are_not_in_the_recorded_values(load: Load) -> None:
    loaded = load(environ={"MLFLOW_TRACKING_URI": "https://me:hunter2@host"})
    assert loaded.tracking.uri == "https://me:hunter2@host"
    assert loaded.values["MLFLOW_TRACKING_URI"] == "https://me:***@host"


# What is refused


def test_unknown_keys_of_every_source(refused: Refused) -> None:
    problems = refused(
        "SFT_LORA_RANK=8\nsft_epochs=2\n",
        environ={"SFT_LEARNING_RATE": "1", "OTHER": "x"},
        overrides=["SFT_EPOCH=1", "HF_TOKEN=hf_secret"],
    )
    found = [(problem.where.rpartition("/")[2], problem.key, problem.remedy) for problem in problems]
    assert found == [
        ("stage1.env:4", "SFT_LORA_RANK", "Did you mean SFT_LORA_R?"),
        ("stage1.env:5", "sft_epochs", "Did you mean SFT_EPOCHS?"),
        ("environment", "SFT_LEARNING_RATE", "Did you mean SFT_LR?"),
        ("--set", "SFT_EPOCH", "Did you mean SFT_EPOCHS?"),
        ("--set", "HF_TOKEN", "Delete it; docs/settings.md lists all keys."),
    ]
    assert problems[0].value == "8"
    assert "hf_secret" not in str(InputError(problems))


def test_foreign_keys_of_the_file_are_ignored_without_showing_them(load: Load) -> None:
    loaded = load("HF_TOKEN=hf_secret\nSTF_LORA_R=8\n")
    token, typo = loaded.notices
    assert token.endswith("stage1.env:4: HF_TOKEN is not a setting of this trainer: ignored.")
    assert typo.endswith("ignored. Did you mean SFT_LORA_R?")
    assert "hf_secret" not in repr(loaded)


def test_set_without_equals(refused: Refused) -> None:
    (problem,) = refused(overrides=["SFT_LR"])
    assert (problem.where, problem.key, problem.remedy) == ("--set", "SFT_LR", "Write --set SFT_LR=VALUE.")


def test_everything_wrong_is_reported_at_once(refused: Refused) -> None:
    problems = refused(
        "SFT_LORA_R=1e3\nSFT_LR=fast\nBARE\nSFT_LR=1\nSFT_PACKING=2\n"
        'SFT_UPSAMPLE_RULES=\'{"a": 0, "b": -1}\'\n',
        environ={"SFT_EPOCHS": "0"},
        overrides=["SFT_MAX_STEPS=0", "SFT_X=1"],
        minimal="SFT_DATASET_ID=a\n",
    )
    found = sorted((problem.where.rpartition("/")[2], problem.key) for problem in problems)
    assert found == [
        ("--set", "SFT_MAX_STEPS"),
        ("--set", "SFT_X"),
        ("environment", "SFT_EPOCHS"),
        ("stage1.env", "SFT_BASE_MODEL"),
        ("stage1.env", "SFT_OUT_LORA_DIR"),
        ("stage1.env:2", "SFT_LORA_R"),
        ("stage1.env:3", "SFT_LR"),
        ("stage1.env:4", "BARE"),
        ("stage1.env:5", "SFT_LR"),
        ("stage1.env:6", "SFT_PACKING"),
        ("stage1.env:7", "SFT_UPSAMPLE_RULES"),
        ("stage1.env:7", "SFT_UPSAMPLE_RULES"),
    ]
    assert all(problem.expected and problem.remedy for problem in problems)


def test_a_required_key_on_a_broken_line_is_not_also_called_missing(refused: Refused) -> None:
    (problem,) = refused("SFT_DATASET_ID=a\n", minimal="SFT_BASE_MODEL 'x'\nSFT_OUT_LORA_DIR=o\n")
    assert (problem.key, "no =" in problem.expected or "KEY=VALUE" in problem.expected) == (
        "SFT_BASE_MODEL",
        True,
    )


def test_of_a_file_without_text_nothing_else_is_called_missing(tmp_path: Path) -> None:
    (tmp_path / "stage1.env").write_bytes("SFT_OUT_LORA_DIR=o".encode("utf-16"))
    with pytest.raises(InputError) as caught:
        load_stage(tmp_path, 1, environ={})
    (problem,) = caught.value.problems
    assert problem.expected == "text in UTF-8"


def test_no_data_set_at_all(refused: Refused) -> None:
    (problem,) = refused(minimal=BASE_AND_OUTPUT)
    assert problem.key == "SFT_DATASET_MIX or SFT_DATASET_IDS or SFT_DATASET_ID"
    assert "SFT_DATASET_ID=" in problem.remedy


def test_a_comment_glued_to_a_value_is_explained(refused: Refused) -> None:
    (problem,) = refused("SFT_LORA_R=16# rank\n")
    assert problem.value == "16# rank"
    assert problem.remedy.endswith("A comment needs a blank before its #.")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SFT_PACKING=2", "0 or 1 (also false/true, no/yes, off/on)"),
        ("SFT_REPLAY=1", "a number, at least 0 and below 1"),
        ("SFT_MIX_UNIT=words", "rows, tokens or supervised_tokens"),
        (
            "SFT_NEGATIVE_SHARE=1.5",
            '0.5 for the whole mix, or {"data set or label": share, …}, shares from 0 to 1',
        ),
        (
            "SFT_ORDER_LEVELS=easy,easy",
            "levels from easy to hard between commas, equal ones between |; no word empty, none twice",
        ),
        ("SFT_BEST_METRIC=gen_leaf_f2", "eval_loss, heldout_loss or a gen_* metric (docs/metrics.md)"),
        ("SFT_GEN_EVAL_STYLE=(", "a regular expression (missing ), unterminated subpattern at position 0)"),
        ("SFT_MERGE_MODE=glue", "merge or stack"),
        ("SFT_OUTPUT_MARKERS=,", "a comma-separated list of markers; no entry empty, none twice"),
        ("SFT_DEEPSPEED_CONFIG=/nowhere/zero.json", "a JSON file with an object, readable as UTF-8"),
        ("SFT_VAL_RATIO=1", "a number, at least 0 and below 1"),
        ("SFT_OPTIM=adam", "adamw_torch"),
        ("SFT_STRICT=maybe", "0 or 1"),
    ],
)
def test_values_that_a_key_does_not_allow(refused: Refused, line: str, expected: str) -> None:
    (problem,) = refused(f"{line}\n")
    assert problem.key == line.partition("=")[0]
    assert problem.expected.startswith(expected)


# Strictness


BROKEN_MIX = "SFT_DATASET_MIX='[{\"id\": }]'\n"


def test_lenient_runs_fall_back_from_a_broken_mix(load: Load) -> None:
    loaded = load(BROKEN_MIX)
    assert loaded.data.mix == (MixEntry("me/data", None),)
    (notice,) = loaded.notices
    assert notice.startswith("[WARNING] Failed to parse DATASET_MIX: Expecting value: line 1 column 9")


def test_strictness_is_known_before_the_mix_is_read(refused: Refused) -> None:
    (problem,) = refused(BROKEN_MIX, overrides=["SFT_STRICT=1"])
    assert (problem.key, problem.expected[:5]) == ("SFT_DATASET_MIX", "JSON:")


def test_a_broken_mix_without_a_fallback_is_refused(refused: Refused) -> None:
    (problem,) = refused(BROKEN_MIX, minimal=BASE_AND_OUTPUT)
    assert (problem.key, problem.where[-13:]) == ("SFT_DATASET_MIX", "/stage1.env:3")


def test_a_wrong_weight_is_refused_in_lenient_runs_too(refused: Refused) -> None:
    (problem,) = refused('SFT_DATASET_MIX=\'[{"id": "a", "weight": 0}]\'\n')
    assert (problem.value, "above 0" in problem.expected) == ('{"id": "a", "weight": 0}', True)


# The folder


def test_stages_are_listed_in_numerical_order(tmp_path: Path) -> None:
    for name in (
        "stage10.env",
        "stage2.env",
        "stage1.env",
        "stage01.env",
        "stage0.env",
        "stage3.env.bak",
        "x.env",
    ):
        (tmp_path / name).touch()
    (tmp_path / "stage4.env").mkdir()
    assert list_stages(tmp_path) == (1, 2, 10)


def test_missing_stage_lists_those_that_exist(tmp_path: Path) -> None:
    for number in (1, 3):
        (tmp_path / f"stage{number}.env").touch()
    with pytest.raises(InputError) as caught:
        load_stage(tmp_path, 2, environ={})
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "stage2.env")
    assert "stage1.env, stage3.env" in problem.expected
    assert "--stage" in problem.remedy
    assert "--stages-dir" in problem.remedy


def test_empty_folder_says_what_a_stage_file_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SFT_BASE_MODEL, SFT_OUT_LORA_DIR and SFT_DATASET_ID"):
        load_stage(tmp_path, 1, environ={})


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stages-dir"):
        list_stages(tmp_path / "none")
