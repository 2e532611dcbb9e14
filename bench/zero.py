"""Two ranks under ZeRO-2, two ranks under plain data parallel, and one rank: speed and memory; and whether an
expert that is idle on one rank makes the others wait.

    python -m bench.zero
    python -m bench.zero --rounds 1 --steps 4

The same global batch on a random Qwen3-MoE on the CPU, every run in fresh processes of the project's own
launcher, trainer and DeepSpeed settings, taking turns. Tokens per second are those of the median step after
two to warm up; memory is the highest resident set of any rank. A run that exceeds its time-out fails the
benchmark.
The last line is JSON; `ratio` is ZeRO-2's tokens per second over plain data parallel's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.timing import load, median_and_spread, ratios
from lib.settings import StageSettings, load_stage
from lib.training.machines.alone import Alone
from lib.training.machines.joined import joined
from lib.training.processes.launch import is_worker, prepare_environment, run_workers
from lib.training.sizing.world import plan_world

ROOT = Path(__file__).resolve().parents[1]
# (processes, SFT_ZERO_STAGE, passes a step): the same rows a step each time.
RUNS = {"ZeRO-2, 2 ranks": (2, 2, 1), "plain, 2 ranks": (2, 0, 1), "1 rank": (1, 2, 2)}
IDLE = {"idle expert, ZeRO-2": (2, 2, 1), "idle expert, plain": (2, 0, 1)}
ROWS, LENGTH, WARM = 4, 128, 2
VOCABULARY = 512
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "moe_intermediate_size": 128, "num_experts": 16,
    "num_experts_per_tok": 4, "max_position_embeddings": 512,
}  # fmt: skip


def main() -> int:
    options = parsed()
    if options.worker:
        return work(options)
    with tempfile.TemporaryDirectory() as folder:
        make_stage(Path(folder))
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*RUNS, *IDLE)}
        for number in range(options.rounds):
            names = list(RUNS)
            for name in names[number % 3 :] + names[: number % 3]:
                runs[name].append(run(name, RUNS[name], Path(folder), options, idle=False))
        for name, cut in IDLE.items():
            runs[name].append(run(name, cut, Path(folder), options, idle=True))
    return report(runs, options)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--time-out", type=int, default=150, help="seconds that one run may take")
    parser.add_argument("--worker", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--cut", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--idle", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_stage(folder: Path) -> None:
    """Two bases, the second with a steered router, a tokenizer that nothing is asked of, and the settings."""
    import torch
    import transformers

    from bench.steered_router import steer

    tokenizer = ROOT / "assets/tiny-moe"
    for name in ("base", "steered"):
        torch.manual_seed(0)
        model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**SIZES))
        if name == "steered":
            steer(model, range(VOCABULARY // 2, VOCABULARY))
        model.save_pretrained(folder / name)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(tokenizer / file, folder / name / file)
    keys = {
        "SFT_BASE_MODEL": folder / "base", "SFT_OUT_LORA_DIR": folder / "out", "SFT_DATASET_ID": "none.jsonl",
        "SFT_SAVE_STEPS": 10**6, "SFT_LOGGING_STEPS": 1, "SFT_VAL_RATIO": 0, "SFT_GEN_EVAL_SAMPLES": 0,
    }  # fmt: skip
    (folder / "stage1.env").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))


def run(
    name: str, cut: tuple[int, int, int], folder: Path, options: argparse.Namespace, *, idle: bool
) -> dict[str, Any]:
    """What the ranks measured; {"hang": true} when they did not finish in time."""
    command = [sys.executable, "-m", "bench.zero", "--worker", str(folder), "--steps", str(options.steps)]
    command += ["--cut", *map(str, cut), *(["--idle"] if idle else [])]
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A session of its own: what does not finish is ended whole, its workers too.
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            _, error = process.communicate(timeout=options.time_out)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            print(f"{name:<22} not finished after {options.time_out} s", flush=True)
            return {"hang": True}
    if process.returncode:
        raise SystemExit(f"{name}: exit code {process.returncode}\n{error.decode(errors='replace')[-3000:]}")
    measured: dict[str, Any] = json.loads(result.read_text())
    print(f"{name:<22} {json.dumps(measured)}", flush=True)
    return measured


def work(options: argparse.Namespace) -> int:
    """Launch the ranks, or be one of them."""
    processes, zero_stage, passes = options.cut
    world = plan_world(processes)
    prepare_environment(world)
    if world.distributed and not is_worker():
        return run_workers(world, [str(Path(__file__).resolve()), *sys.argv[1:]], sharded=zero_stage == 2)
    rows = 1 if options.idle else ROWS
    overrides = [
        f"SFT_PER_DEVICE_TRAIN_BS={rows}", f"SFT_GRAD_ACCUM={passes}", f"SFT_MAX_STEPS={options.steps}",
        f"SFT_ZERO_STAGE={zero_stage}", "SFT_GRADIENT_CHECKPOINTING=0",
        f"SFT_BASE_MODEL={options.worker / ('steered' if options.idle else 'base')}",
    ]  # fmt: skip
    settings = load_stage(options.worker, 1, overrides=overrides, environ={})
    with joined(world) as machines:
        count = rows * passes * processes * options.steps
        train(settings, options.worker / "result.json", machines, count=count)
    return 0


def train(settings: StageSettings, result: Path, machines: Alone, *, count: int) -> None:
    """Train on `count` random rows with the project's own trainer; rank 0 writes what all measured."""
    import torch

    from lib.data.order.order import TrainingOrder
    from lib.data.order.packing import rows_alone
    from lib.model.adapter import attach_lora
    from lib.model.base import StageBase, choose_compute, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.quiet import quiet_libraries
    from lib.training.sizing.peak_memory import peak_memory_bytes
    from lib.training.trainer import build_trainer

    quiet_libraries()
    world = plan_world(None)
    compute = choose_compute(settings.model)
    processes = Processes(settings, world, compute.dtype, evaluates=False, machines=machines)
    path = settings.model.base_model
    model = load_base(
        StageBase(path, "", path, merged=False, reused=False, seconds=0.0), compute, on_gpu=world.gpus > 0
    )
    rows = random_rows(count)
    # What the trainer asks of prepared data; random ids have no data set behind them.
    data: Any = SimpleNamespace(train=rows, packs=rows_alone(count), order=TrainingOrder(count, seed=0))
    form = choose_batch_form(model, rows, packing=False)
    model, _ = attach_lora(model, find_targets(model, settings.lora.target_modules), settings.lora, seed=0)
    clock, routes = step_clock(), watched_routes(model)
    tokenizer = load_tokenizer(settings.model)
    trainer = build_trainer(model, tokenizer, data, [], settings, processes, form, [clock], None)
    trainer.train()
    # Every rank says for each of its passes which experts of the first layer had tokens.
    everyone = processes.gather([(peak_memory_bytes(), routes)])
    seconds = statistics.median(clock.seconds[WARM:])
    tokens = settings.training.micro_batch * settings.training.grad_accum * world.processes * LENGTH
    measured = {
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_bytes_by_rank": [peak for peak, _ in everyone],
        "passes_with_an_idle_expert_on_one_rank_only": idle_on_one(
            list(zip(*(r for _, r in everyone), strict=True))
        ),
        "threads": torch.get_num_threads(),
    }
    if processes.is_main:
        result.write_text(json.dumps(measured))


def step_clock() -> Any:
    """A callback that notes the seconds of every step."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.started)

    return StepClock()


def watched_routes(model: Any) -> list[list[int]]:
    """Filled while training: the experts of the first layer that a pass gives tokens to."""
    routes: list[list[int]] = []
    router = next(module for module in model.modules() if type(module).__name__.endswith("TopKRouter"))
    router.register_forward_hook(lambda _module, _inputs, output: routes.append(output[-1].unique().tolist()))
    return routes


def random_rows(count: int) -> list[Any]:
    """Every other row is of the second half of the vocabulary, which a steered router sends elsewhere."""
    import random

    from lib.data.chat.encoded import EncodedRow

    draw, half = random.Random(0), VOCABULARY // 2
    rows = []
    for number in range(count):
        first = half * (number % 2)
        ids = [draw.randrange(first, first + half) for _ in range(LENGTH)]
        rows.append(EncodedRow(f"random#{number}", "random", (), "ok", ids, [True] * LENGTH, LENGTH))
    return rows


def idle_on_one(passes: list[tuple[list[int], ...]]) -> int:
    """In how many passes one rank gave tokens to an expert that another rank gave none."""
    return sum(len({tuple(experts) for experts in ranks}) > 1 for ranks in passes)


def report(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> int:
    hung = [name for name, results in runs.items() if any("hang" in result for result in results)]
    idle = {name: runs[name][0] for name in IDLE}
    missed = [name for name in IDLE if not idle[name].get("passes_with_an_idle_expert_on_one_rank_only")]
    line: dict[str, Any] = {"bench": "zero", "hung": hung, "ratio": None}
    if not hung:
        speeds = {name: [result["tokens_per_second"] for result in runs[name]] for name in RUNS}
        memory = {name: max(max(result["peak_bytes_by_rank"]) for result in runs[name]) for name in RUNS}
        print(f"\n{'':<18} {'tokens/s':>10} {'highest rank':>14}")
        for name in RUNS:
            print(f"{name:<18} {statistics.median(speeds[name]):>10.0f} {memory[name] / 1e9:>11.2f} GB")
        two, plain, one = (speeds[name] for name in RUNS)
        compared = ratios(two, plain)
        line |= {
            "ratio": median_and_spread(compared)["median"],
            "spread": median_and_spread(compared)["spread"],
            "bound": median_and_spread(ratios(plain, one))["median"],
            "tokens_per_second": {name: median_and_spread(values, 1) for name, values in speeds.items()},
            "peak_bytes": memory,
            "idle_expert": {
                name: result["passes_with_an_idle_expert_on_one_rank_only"] for name, result in idle.items()
            },
        }
    line |= {"rounds": options.rounds, "steps": options.steps, "time_out": options.time_out, "load": load()}
    print(json.dumps(line))
    return 1 if hung or missed else 0


if __name__ == "__main__":
    sys.exit(main())
