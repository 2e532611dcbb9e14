"""`--plan --hardware`: Qwen3-30B-A3B on GPUs that are not here, against numbers worked out by hand.

Of the model there is its configuration alone, as the Hub's cache has it after fetching nothing else.
"""

import json
import subprocess
from typing import Any

import pytest
from stand_ins import QWEN_MOE
from train_command import ROOT, TrainCommand

# https://huggingface.co/Qwen/Qwen3-30B-A3B-Instruct-2507 config.json, as far as sizes go
CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 151_936, "max_position_embeddings": 262_144, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
STAGES = ("--stages-dir", ROOT / "stages/structeval-qwen3-30b-a3b", "--stage", 1, "--plan")

# What every process holds of it. A layer: q and o 2048 x 4096, k and v 2048 x 512, the router 2048 x 128, of
# 128 experts three of 2048 x 768; the embedding and the head 151,936 x 2048 each. Two bytes a weight.
WEIGHTS = 2 * (48 * (16_777_216 + 2_097_152 + 262_144 + 603_979_776) + 622_329_856)
# Rank 8: in + out of q and o 6144, of k and v 2560; each expert 2048 + 1536 and 768 + 2048. 321 million.
ADAPTER = 8 * 48 * (2 * 6144 + 2 * 2560 + 128 * (3584 + 2816))
# Two buckets of 50 million gradients.
BUCKETS = 2 * 50_000_000 * 2
TOKENS = 4 * 2048
# A layer keeps of a token, under SDPA and dropout: two norms 16,392 bytes, those of queries and keys 18,576;
# three LoRA inputs with masks 18,480; queries, keys, values and output 32,768, sums 128 and a mask 4,096; o's
# LoRA input 12,304; router 832, the experts' input 4,096, and of 8 experts 1,536 + 16 numbers: 24,832.
LAYER = 16_392 + 18_576 + 18_480 + 32_768 + 128 + 4_096 + 12_304 + 832 + 4_096 + 24_832
# Going back through one layer: three gradients of the states; of 65,536 rows of experts five times 2048 and
# six times 768; the factors' gradients, 128 x 8 x 6400 numbers in 10 bytes.
BACKWARD = 2 * 3 * TOKENS * 2048 + 2 * 8 * TOKENS * (5 * 2048 + 6 * 768) + 10 * 128 * 8 * 6400
# 16 prompts of 1024, each leaving 1024 of 2048 for its answer: keys and values of 4 heads in 48 layers, and 8
# experts' rows of one layer.
ANSWERS = 16 * 1024 * (2 * 48 * 4 * 128 * 2 + 2 * 8 * (2 * 2048 + 3 * 768))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> TrainCommand:
    folder = tmp_path_factory.mktemp("at_size")
    snapshot = folder / "hub" / f"models--{QWEN_MOE.replace('/', '--')}" / "snapshots" / "0d7cf23"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    return TrainCommand(folder)


def planned(command: TrainCommand, *options: object) -> subprocess.CompletedProcess[str]:
    return command(*STAGES, *options, HF_HOME=str(command.cwd))


def estimates(
    command: TrainCommand, hardware: str, *options: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    result = planned(command, "--json", "--hardware", hardware, *options)
    assert result.returncode == 0, result.stderr
    (plan,) = json.loads(result.stdout)
    return plan["batch"], plan["estimates"]


def test_on_four_gpus_of_80_gb(command: TrainCommand) -> None:
    """Each holds the whole base: 61 of 72 GB. What is left takes four rows with every layer recomputed."""
    batch, found = estimates(command, "4xH100")
    assert (batch["rows"], batch["passes"], batch["global_batch"]) == (4, 1, 16)
    assert batch["checkpointing"]
    # fp32 weights, gradients and two moments of the adapter are shared out; what is in bf16 is not.
    trained = 2 * ADAPTER + 2 * ADAPTER + 16 * ADAPTER / 4 + BUCKETS
    kept = 48 * TOKENS * 2048 * 2 + TOKENS * LAYER
    assert kept + BACKWARD > ANSWERS, "an evaluation needs no more than training does"
    assert found["memory"]["value"] == pytest.approx(WEIGHTS + trained + kept + BACKWARD, rel=1e-6)
    assert found["memory"]["value"] == pytest.approx(68.6e9, rel=1e-3)
    # A token: 3.04 billion active weights twice forward, twice back, but for the head once more forward; half
    # a row of attention six times; 26 million weights of 8 experts' factors, eight times.
    head, active = 151_936 * 2048, 48 * (19_136_512 + 8 * 3 * 2048 * 768)
    factors = 8 * 48 * (2 * 6144 + 2 * 2560 + 8 * (3584 + 2816))
    flops = 6 * active + 4 * head + 4 * (2 * 48 * 4096 * 2048) + 8 * factors
    # 1,500 steps of one pass each at a quarter of 989.5 TFLOP/s.
    assert found["time"]["value"] == pytest.approx(1500 * TOKENS * flops / (0.25 * 989.5e12), rel=1e-6)
    assert found["time"]["value"] == pytest.approx(1045, rel=0.01)


def test_where_answers_are_the_highest_point_they_are_counted(command: TrainCommand) -> None:
    """With one row a pass training keeps a quarter of that; the batch of answers stays what it is."""
    _, found = estimates(command, "4xH100", "--set", "SFT_GLOBAL_BATCH_SIZE=4")
    trained = 2 * ADAPTER + 2 * ADAPTER + 16 * ADAPTER / 4 + BUCKETS
    assert found["memory"]["value"] == pytest.approx(WEIGHTS + trained + ANSWERS, rel=1e-6)
    assert any(line.startswith("generating answers ") for line in found["memory"]["lines"])


def test_on_one_gpu_of_141_gb(command: TrainCommand) -> None:
    """One copy, and room for four rows whose activations are all kept: no layer is computed twice."""
    batch, found = estimates(command, "1xH200")
    assert (batch["rows"], batch["passes"], batch["global_batch"]) == (4, 4, 16)
    assert not batch["checkpointing"]
    trained = 2 * ADAPTER + 2 * ADAPTER + 16 * ADAPTER + BUCKETS
    kept = 48 * TOKENS * LAYER
    assert found["memory"]["value"] == pytest.approx(WEIGHTS + trained + kept + BACKWARD, rel=1e-6)
    assert found["memory"]["value"] == pytest.approx(121.9e9, rel=1e-3)
    head, active = 151_936 * 2048, 48 * (19_136_512 + 8 * 3 * 2048 * 768)
    factors = 8 * 48 * (2 * 6144 + 2 * 2560 + 8 * (3584 + 2816))
    flops = 4 * active + 4 * head + 3 * (2 * 48 * 4096 * 2048) + 6 * factors
    assert found["time"]["value"] == pytest.approx(6000 * TOKENS * flops / (0.25 * 989.5e12), rel=1e-6)


def test_the_arithmetic_is_there_line_by_line(command: TrainCommand) -> None:
    result = planned(command, "--hardware", "4xH100")
    said = " ".join(result.stdout.split())
    for part in (
        "runs as 4 processes on 4 x H100, DeepSpeed ZeRO-2",
        "weights 61.1 GB 30,531,911,680 x 2 bytes; all of them in each of 4 processes",
        "adapter 642.5 MB 321,257,472 x 2 bytes",
        "gradients 642.5 MB",
        "optimizer 1.3 GB 321,257,472 x (4 + 4 + 8) bytes / 4 processes",
        "activations 2.7 GB 8,192 tokens x 48 layers x 4,096 bytes",
        "logits and workspace 2.1 GB",
        "together 68.6 GB of 72.0 GB: 3.4 GB stays free",
        "reserve 8.0 GB 10% for the CUDA context",
        "GFLOP a token = forward",
        "25% of the 989.5 TFLOP/s of one H100",
        "of weights read a pass / 3.35 TB/s",
        "at most: every row taken as long as SFT_MAX_SEQ_LEN",
    ):
        assert part in said, part


def test_what_cannot_fit_is_refused_with_what_to_do(command: TrainCommand) -> None:
    small = planned(command, "--hardware", "4x48GB")
    assert small.returncode == 2
    assert "the weights alone take 61.1 GB, whole in every process" in small.stderr
    greedy = ("--set", "SFT_LORA_R=64", "--set", "SFT_GRADIENT_CHECKPOINTING=0")
    large = planned(command, "--hardware", "1x80GB", *greedy)
    assert large.returncode == 2
    for lower in ("SFT_GRADIENT_CHECKPOINTING=1 (a third more time)", "SFT_LORA_R=32 (a smaller adapter)"):
        assert lower in large.stderr
    assert "Traceback" not in small.stderr + large.stderr


def test_on_a_machine_without_a_gpu_the_plan_says_how_to_plan_for_one(command: TrainCommand) -> None:
    result = planned(command, "--nproc", 4)
    assert result.returncode == 0, result.stderr
    assert "--hardware 4xH100 plans for what is elsewhere" in result.stdout


def test_a_base_that_is_not_here_is_planned_without_numbers_and_says_what_is_missing(
    command: TrainCommand,
) -> None:
    result = command(*STAGES, "--hardware", "4xH100", HF_HOME=str(command.cwd / "empty"))
    assert result.returncode == 0, result.stderr
    assert f"`hf download {QWEN_MOE} config.json`" in " ".join(result.stdout.split())
