"""The curricula of stages/, with their real names: planned without a network, run on tiny stand-ins."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from model_distance import distance, load
from peft import PeftModel
from stand_ins import FEW_STEPS, GEMMA, QWEN, QWEN_MOE, RINNA, STRUCTEVAL, StandIns
from train_command import ROOT

STAGES = {
    "chat-rinna": 1,
    "news-extraction-qwen3-30b-a3b": 1,
    "news-extraction-qwen3-30b-a3b-two-stage": 2,
    "news-extraction-tiny": 2,
    "qlora-gemma2": 1,
    "structeval-qwen3-30b-a3b": 3,
    "structeval-qwen3-4b": 3,
}
BASES = {
    "chat-rinna": RINNA,
    "news-extraction-tiny": "assets/tiny-moe",
    "qlora-gemma2": GEMMA,
    "structeval-qwen3-4b": QWEN,
}


@pytest.fixture
def stand_ins(tmp_path: Path, empty_store: Path) -> StandIns:
    made = StandIns(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns/mlflow.db")
    return made


def assert_trained(made: StandIns, curriculum: str, stages: int, metric: str) -> None:
    """Every stage is complete, logged its metrics, stands on all before it, and loads with plain PEFT."""
    base = made.folder / BASES.get(curriculum, QWEN_MOE)
    for number in range(1, stages + 1):
        record = made.record(number)
        assert [parent["stage"] for parent in record["parents"]] == list(range(1, number))
        assert metric in record["evaluation"]["after"]["metrics"]
        assert record["mlflow_run_id"]
        model = PeftModel.from_pretrained(load(base), made.stage_dir(number))
        moved = [name for name, weight in model.named_parameters() if "lora_B" in name and weight.any()]
        assert moved, f"stage {number} learned nothing"


@pytest.mark.parametrize("curriculum", ["structeval-qwen3-4b", "structeval-qwen3-30b-a3b"])
def test_the_guides_curriculum_is_planned_without_network_and_data(
    curriculum: str, stand_ins: StandIns
) -> None:
    plans = stand_ins.plan(curriculum)
    assert [plan["stage"] for plan in plans] == [1, 2, 3]
    assert {plan["base"]["model"] for plan in plans} == {BASES.get(curriculum, QWEN_MOE)}
    assert {name for plan in plans for name in plan["absent"]} == set(STRUCTEVAL)
    assert not any(plan["problems"] for plan in plans)
    name = "qwen3_4b" if curriculum.endswith("4b") else "qwen3_30b_a3b"
    assert [plan["output"] for plan in plans] == [
        f"/content/lora_structeval_t_{name}_stage{number}" for number in (1, 2, 3)
    ]


def test_the_news_curriculum_draws_what_its_document_says(stand_ins: StandIns) -> None:
    """From few rows here, so that each is drawn more often."""
    stand_ins.news_data()
    (plan,) = stand_ins.plan("news-extraction-qwen3-30b-a3b", "--nproc", 4)
    positives, negatives = plan["ledger"]["sources"]
    assert (positives["drawn"], negatives["drawn"], plan["ledger"]["upsampled"]) == (78_663, 96_000, 174_663)
    assert round(negatives["drawn"] / positives["drawn"], 1) == 1.2
    assert plan["steps"] == 4095  # 174,663 rows, 1.5 times, 64 a step
    _, second = stand_ins.plan("news-extraction-qwen3-30b-a3b-two-stage")
    assert (second["steps"], second["ledger"]["upsampled"]) == (1500, 174_663)


def test_the_chat_curriculum_takes_the_documents_42_steps(stand_ins: StandIns) -> None:
    stand_ins.nya_data()
    (plan,) = stand_ins.plan("chat-rinna")
    assert (plan["base"]["model"], plan["steps"], plan["problems"]) == (RINNA, 42, [])


def test_the_qlora_curriculum_takes_the_notebooks_45_steps(stand_ins: StandIns) -> None:
    """Planned without the gated model; without a token the run says what is needed."""
    stand_ins.noda_data()
    (plan,) = stand_ins.plan("qlora-gemma2")
    assert (plan["base"]["model"], plan["base"]["quantization"]) == (GEMMA, "nf4-double")
    assert (plan["steps"], plan["problems"]) == (45, [])
    refused = stand_ins.command("--stages-dir", ROOT / "stages/qlora-gemma2", "--stage", 1)
    assert refused.returncode == 2
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_tiny_news_curriculum_runs_as_it_is(stand_ins: StandIns) -> None:
    for name in ("assets", "data"):
        (stand_ins.folder / name).symlink_to(ROOT / name)
    first, second = stand_ins.plan("news-extraction-tiny")
    assert (first["problems"], second["problems"]) == ([], [])
    assert [line["drawn"] for line in second["ledger"]["sources"]] == [320, 384]


def test_a_dense_model(stand_ins: StandIns) -> None:
    stand_ins.qwen()
    stand_ins.structeval_data()
    said = stand_ins.train("structeval-qwen3-4b", 1)
    assert "gen_leaf_f1" in said
    assert_trained(stand_ins, "structeval-qwen3-4b", 1, "gen_leaf_f1")


def test_a_mixture_of_experts(stand_ins: StandIns) -> None:
    stand_ins.qwen_moe()
    stand_ins.news_data()
    stand_ins.train("news-extraction-qwen3-30b-a3b", 1, SFT_DATASET_MIX_TOTAL_SIZE=60)
    assert_trained(stand_ins, "news-extraction-qwen3-30b-a3b", 1, "gen_unparsed_rate_on_negative")
    assert stand_ins.record(1)["adapter"]["experts"] > 0


def test_gpt2_under_a_sentencepiece_tokenizer(stand_ins: StandIns) -> None:
    stand_ins.rinna()
    stand_ins.nya_data()
    stand_ins.train("chat-rinna", 1)
    assert_trained(stand_ins, "chat-rinna", 1, "gen_style_rate")
    record = stand_ins.record(1)
    assert "gen_style_rate" in record["evaluation"]["before"]["metrics"]
    assert record["data"]["ledger"]["sources"][0]["rows"] == 55
    assert record["adapter"]["attention"] > 0
    assert record["adapter"]["dense_mlp"] > 0


@pytest.mark.slow
def test_gemma_2_in_four_bits(stand_ins: StandIns) -> None:
    stand_ins.gemma()
    stand_ins.noda_data()
    said = stand_ins.train("qlora-gemma2", 1)
    assert "attention eager" in said
    assert_trained(stand_ins, "qlora-gemma2", 1, "gen_style_rate")
    record = stand_ins.record(1)
    assert record["base"]["quantization"] == "nf4-double"
    assert record["data"]["ledger"]["sources"][0]["rows"] == 60
    config = json.loads((stand_ins.stage_dir(1) / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert len(config["target_modules"]) == 7
    assert list((stand_ins.stage_dir(1) / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curriculum", "base", "data", "metric"),
    [
        ("structeval-qwen3-4b", StandIns.qwen, StandIns.structeval_data, "gen_leaf_f1"),
        ("structeval-qwen3-30b-a3b", StandIns.qwen_moe, StandIns.structeval_data, "gen_leaf_f1"),
        (
            "news-extraction-qwen3-30b-a3b-two-stage",
            StandIns.qwen_moe,
            StandIns.news_data,
            "gen_unparsed_rate_on_negative",
        ),
    ],
)
def test_a_whole_chain(
    curriculum: str,
    base: Callable[[StandIns], None],
    data: Callable[[StandIns], None],
    metric: str,
    stand_ins: StandIns,
) -> None:
    base(stand_ins)
    data(stand_ins)
    stand_ins.train(curriculum, "all")
    assert_trained(stand_ins, curriculum, STAGES[curriculum], metric)


@pytest.mark.slow
def test_the_news_of_full_size(stand_ins: StandIns) -> None:
    """All 126,221 articles: each positive three times, each of the first 96,000 negatives once."""
    from data.news.make_news import FULL, write_set

    write_set(FULL, stand_ins.folder / "data/news/full", 1)
    (plan,) = stand_ins.plan("news-extraction-qwen3-30b-a3b")
    positives, negatives = plan["ledger"]["sources"]
    assert (positives["rows"], positives["max_repeats"], positives["unseen"]) == (26_221, 3, 0)
    assert (negatives["rows"], negatives["max_repeats"], negatives["unseen"]) == (96_000, 1, 0)


@pytest.mark.slow
def test_a_second_stage_on_gpt2_and_what_is_exported(stand_ins: StandIns) -> None:
    """Its weights are stored the other way round: merged and exported they say what base and adapters say."""
    from transformers import AutoTokenizer

    stand_ins.rinna()
    stand_ins.nya_data()
    stages = stand_ins.folder / "stages"
    stages.mkdir()
    own = {**FEW_STEPS, "SFT_LR": 3e-2}  # two steps at the file's own rate move nothing that could be seen
    few = "".join(f"{key}='{value}'\n" for key, value in own.items())
    shipped = (ROOT / "stages/chat-rinna/stage1.env").read_text(encoding="utf-8")
    kept = [line for line in shipped.splitlines() if line.partition("=")[0] not in own]
    for number in (1, 2):
        (stages / f"stage{number}.env").write_text("\n".join(kept) + "\n" + few)
    stand_ins.command.done("--stage", "all")
    assert stand_ins.record(2)["base"]["proof"]["logits"]["same_first"] > 0.95
    export = type(stand_ins.command)(stand_ins.folder, ROOT / "export.py")
    export.done("--stage", 2, "--to", "my-model")
    base, expected = load(stand_ins.folder / RINNA), load(stand_ins.folder / RINNA)
    for number in (1, 2):
        expected = PeftModel.from_pretrained(expected, stand_ins.stage_dir(number)).merge_and_unload()
    effect = distance(base, expected)
    assert effect > 0.1
    assert distance(load(stand_ins.folder / "my-model"), expected) < 1e-3 * effect
    export.done("--stage", 2, "--to", "my-adapter", "--adapter-only")
    stacked = PeftModel.from_pretrained(base, stand_ins.folder / "my-adapter")
    assert distance(stacked, expected) < 1e-3 * effect
    tokenizer = AutoTokenizer.from_pretrained(stand_ins.folder / "my-model")
    assert tokenizer("鰯", add_special_tokens=False).input_ids[-1] == tokenizer.unk_token_id == 0
