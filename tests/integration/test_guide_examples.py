"""The examples of the multi-stage training guide, one test each, with the guide's own figures and lines.

Each text stands in a stage file as the guide has it, non-strict as the guide is; the data sets lie in folders
of the names that it uses. Where ours differs, docs/migrating.md says so and the test has our figure.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lib.data.mixing.mixture import Mixture
from lib.data.prepare import plan_rows
from lib.lineage.curriculum import survey
from lib.planning.obstacles import obstacles
from lib.settings import InputError, StageSettings, load_stage

SINGLE = "SFT_DATASET_ID=u-10bei/structured_data_with_cot_dataset_512_v2\n"
OUT = "SFT_OUT_LORA_DIR=lora_structeval_t_qwen3_4b\n"
BASE = "SFT_BASE_MODEL=Qwen/Qwen3-4B-Instruct-2507\n"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stages").mkdir()
    return tmp_path


def data_set(name: str, rows: int, types: Sequence[str] = ("json_to_yaml",)) -> None:
    folder = Path(name)
    folder.mkdir(parents=True)
    content = [{"text": f"{name} {i}", "metadata": {"type": types[i % len(types)]}} for i in range(rows)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def stage(text: str, number: int = 1) -> StageSettings:
    Path(f"stages/stage{number}.env").write_text(BASE + OUT + text)
    return load_stage(Path("stages"), number, environ={})


def mixed(text: str, number: int = 1) -> Mixture:
    """What the stage draws; nothing is held out, so that the figures are the guide's."""
    mixture = plan_rows(stage(text + "SFT_VAL_RATIO=0\n", number), None).mixture
    assert mixture is not None
    return mixture


def drawn(mixture: Mixture) -> dict[str, int]:
    return {line.id: line.drawn for line in mixture.ledger.sources}


def warnings(number: int) -> list[str]:
    (stage,) = survey(Path("stages"), [number], chosen=[number], environ={})
    problems, notices = obstacles(stage)
    assert not problems
    return notices


def test_a_single_data_set() -> None:
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 12)
    assert drawn(mixed(SINGLE)) == {"u-10bei/structured_data_with_cot_dataset_512_v2": 12}


def test_a_mix_over_several_lines_in_single_quotes() -> None:
    data_set("dataset1", 30)
    data_set("dataset2", 30)
    mixture = mixed(
        "SFT_DATASET_MIX='[\n"
        '  {"id": "dataset1", "weight": 1.0, "split": "train"},\n'
        '  {"id": "dataset2", "weight": 2.0, "split": "train"}\n'
        "]'\n"
    )
    assert drawn(mixture) == {"dataset1": 10, "dataset2": 20}  # twice as many


def test_example_1_two_sets_in_equal_parts() -> None:
    data_set("dataset_A", 40)
    data_set("dataset_B", 40)
    assert drawn(
        mixed(
            "SFT_DATASET_MIX='[\n"
            '  {"id": "dataset_A", "weight": 1.0},\n'
            '  {"id": "dataset_B", "weight": 1.0}\n'
            "]'\n"
        )
    ) == {"dataset_A": 20, "dataset_B": 20}


def test_example_2_one_set_three_times_the_other() -> None:
    data_set("general_data", 100)
    data_set("toml_specialized_data", 100)
    assert drawn(
        mixed(
            "SFT_DATASET_MIX='[\n"
            '  {"id": "general_data", "weight": 1.0},\n'
            '  {"id": "toml_specialized_data", "weight": 3.0}\n'
            "]'\n"
        )
    ) == {"general_data": 25, "toml_specialized_data": 75}


def test_example_3_four_sets() -> None:
    for name in ("base", "json", "toml", "yaml"):
        data_set(f"dataset_{name}", 70)
    assert drawn(
        mixed(
            "SFT_DATASET_MIX='[\n"
            '  {"id": "dataset_base", "weight": 2.0},\n'
            '  {"id": "dataset_json", "weight": 1.5},\n'
            '  {"id": "dataset_toml", "weight": 2.5},\n'
            '  {"id": "dataset_yaml", "weight": 1.0}\n'
            "]'\n"
        )
    ) == {"dataset_base": 20, "dataset_json": 15, "dataset_toml": 25, "dataset_yaml": 10}


def test_the_sampling_example() -> None:
    """1,000 rows of weight 1 and 500 of weight 2. The guide rounds the shares first, 0.33 and 0.67, and has
    330 + 670; the exact shares of 1,000 rows are 333 + 667."""
    data_set("dataset_A", 1000)
    data_set("dataset_B", 500)
    mixture = mixed(
        'SFT_DATASET_MIX=\'[{"id": "dataset_A", "weight": 1.0}, {"id": "dataset_B", "weight": 2.0}]\'\n'
    )
    assert drawn(mixture) == {"dataset_A": 333, "dataset_B": 667}
    assert [round(line.share, 2) for line in mixture.ledger.sources] == [0.33, 0.67]
    assert len(mixture.train) == 1000
    assert [row.source for row in mixture.train[:400]] != ["dataset_A"] * 333 + ["dataset_B"] * 67  # shuffled


def test_the_full_example_of_stage_1() -> None:
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 12)
    settings = stage(
        SINGLE + "SFT_MAX_SEQ_LEN=2048\nSFT_LORA_R=8\nSFT_LORA_ALPHA=32\nSFT_EPOCHS=1\nSFT_MAX_STEPS=1500\n"
        "SFT_LR=1e-4\n"
    )
    assert str(settings.stage_dir) == "lora_structeval_t_qwen3_4b_stage1"
    assert (settings.lora.rank, settings.lora.alpha, settings.data.max_seq_len) == (8, 32, 2048)
    assert (settings.training.max_steps, settings.training.lr) == (1500, 1e-4)


def test_the_full_example_of_stage_2_with_mix_and_upsampling() -> None:
    """Rules multiply what the mix drew: 20 + 40 of 60 rows; the labels are the types of the rows."""
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 60)
    data_set("additional_toml_dataset", 40, ("text_to_toml", "toml_to_yaml"))
    mixture = mixed(
        "# データセットをMix\nSFT_DATASET_MIX='[\n"
        '  {"id": "u-10bei/structured_data_with_cot_dataset_512_v2", "weight": 1.0},\n'
        '  {"id": "additional_toml_dataset", "weight": 2.0}\n'
        "]'\n\nSFT_MAX_SEQ_LEN=2048\nSFT_LORA_R=8\nSFT_EPOCHS=1\nSFT_LR=5e-5\n\n"
        "# アップサンプリングも併用可能\nSFT_USE_UPSAMPLING=1\n"
        'SFT_UPSAMPLE_RULES=\'{"text_to_toml": 3.0, "toml_to_yaml": 2.0}\'\n',
        number=2,
    )
    assert drawn(mixture) == {
        "u-10bei/structured_data_with_cot_dataset_512_v2": 20,
        "additional_toml_dataset": 40,
    }
    seen = {line.value: line.drawn for line in mixture.ledger.labels}
    assert seen == {"json_to_yaml": 20, "text_to_toml": 60, "toml_to_yaml": 40}


def test_the_full_example_of_stage_3() -> None:
    data_set("dataset_balanced", 50)
    data_set("dataset_hard_cases", 50)
    text = (
        "SFT_DATASET_MIX='[\n"
        '  {"id": "dataset_balanced", "weight": 1.0},\n'
        '  {"id": "dataset_hard_cases", "weight": 1.5}\n'
        "]'\n\nSFT_EPOCHS=1\nSFT_LR=2e-5\n"
    )
    assert drawn(mixed(text, number=3)) == {"dataset_balanced": 20, "dataset_hard_cases": 30}


def test_the_output_folders() -> None:
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 12)
    second = stage(SINGLE, number=2)
    assert str(second.stage_dir) == "lora_structeval_t_qwen3_4b_stage2"
    assert str(second.merged_base_dir) == "lora_structeval_t_qwen3_4b_stage2_merged_base"


def test_the_experiment_has_the_stages_number_or_a_name_of_ones_own() -> None:
    assert stage(SINGLE).values["MLFLOW_EXPERIMENT_NAME"] == "llm-training-stage1"
    own = stage(SINGLE + "MLFLOW_EXPERIMENT_NAME=my-custom-experiment-stage1\n")
    assert own.values["MLFLOW_EXPERIMENT_NAME"] == "my-custom-experiment-stage1"


def test_a_mix_overrules_a_single_data_set() -> None:
    data_set("dataset_A", 10)
    mixture = mixed(SINGLE + 'SFT_DATASET_MIX=\'[{"id": "dataset_A"}]\'\n')
    assert drawn(mixture) == {"dataset_A": 10}


def test_the_warning_of_a_missing_stage() -> None:
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 12)
    stage(SINGLE, number=2)
    stage(SINGLE, number=1)
    assert warnings(2) == [
        "[WARNING] Previous stage adapter not found at lora_structeval_t_qwen3_4b_stage1, "
        "starting from base model"
    ]


def test_the_error_of_a_data_set_that_fails_to_load_and_training_goes_on() -> None:
    data_set("dataset_A", 10)
    Path("dataset_B").mkdir()
    planned = plan_rows(stage('SFT_DATASET_MIX=\'[{"id": "dataset_A"}, {"id": "dataset_B"}]\'\n'), None)
    assert [notice for notice in planned.notices if notice.startswith("[ERROR] Failed to load dataset_B: ")]
    assert [source.id for source in planned.sources] == ["dataset_A"]


def test_the_warning_of_broken_json() -> None:
    data_set("u-10bei/structured_data_with_cot_dataset_512_v2", 12)
    settings = stage(SINGLE + "SFT_DATASET_MIX='[{'\n")
    assert settings.notices[0].startswith("[WARNING] Failed to parse DATASET_MIX: ")
    assert [entry.id for entry in settings.data.mix] == ["u-10bei/structured_data_with_cot_dataset_512_v2"]


def test_strict_makes_each_of_them_an_error() -> None:
    data_set("dataset_A", 10)
    Path("dataset_B").mkdir()
    with pytest.raises(InputError, match="SFT_DATASET_MIX"):
        stage("SFT_STRICT=1\nSFT_DATASET_MIX='[{'\n" + SINGLE)
    gap = 'SFT_STRICT=1\nSFT_DATASET_MIX=\'[{"id": "dataset_A"}, {"id": "dataset_B"}]\'\n'
    with pytest.raises(InputError, match="dataset_B"):
        plan_rows(stage(gap), None)
    stage("SFT_STRICT=1\n" + SINGLE, number=1)
    stage("SFT_STRICT=1\n" + SINGLE, number=2)
    (second,) = survey(Path("stages"), [2], chosen=[2], environ={})
    assert [problem.key for problem in obstacles(second)[0]] == ["SFT_OUT_LORA_DIR"]
