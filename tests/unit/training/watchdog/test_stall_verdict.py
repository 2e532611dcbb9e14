"""What is said of a run that does not move, from what was seen of its processes."""

from dataclasses import replace
from typing import Any

import pytest

from lib.training.watchdog.evidence import Evidence, Frame
from lib.training.watchdog.stall_verdict import OURS, Report, Seen, judge, verdict

TRAINER = Frame("/site/transformers/trainer.py", 2, "training_step")
STEP = Frame(f"{OURS}training/stage_trainer.py", 80, "compute_loss")
EXPERT = Frame(f"{OURS}model/expert_lora/kernel.py", 41, "forward")
EAGER = Frame("/site/transformers/models/qwen3_moe/modeling_qwen3_moe.py", 70, "experts_forward")
REDUCE = (
    Frame("/site/torch/distributed/c10d_logger.py", 83, "wrapper"),
    Frame("/site/torch/distributed/distributed_c10d.py", 3000, "all_reduce"),
)
DEEPSPEED = (
    Frame("/site/deepspeed/comm/comm.py", 104, "log_wrapper"),
    Frame("/site/deepspeed/comm/comm.py", 526, "all_reduce"),
    Frame("/site/deepspeed/comm/torch.py", 10, "inference_all_reduce"),
)
BACKWARD = Frame("/site/torch/autograd/graph.py", 824, "_engine_run_backward")
LOADER = Frame("/site/torch/utils/data/dataloader.py", 700, "__next__")
TOKENISING = Frame(f"{OURS}data/chat.py", 100, "encode")
HUB = Frame("/site/huggingface_hub/file_download.py", 300, "http_get")
IMPORT = Frame("<frozen importlib._bootstrap_external>", 1130, "get_data")


def evidence(*frames: Frame, cpu: float = 0.0, **changes: Any) -> Evidence:
    seen = Evidence((TRAINER, *frames), (), cpu, disk_waits=0, file_call="", building="", stacks="")
    return replace(seen, **changes)


CASES: dict[str, tuple[Evidence, str, str]] = {
    "computing": (evidence(STEP, cpu=1), "computing", "still computing (1.0 cores busy), in stage_trainer"),
    "our experts": (evidence(STEP, EXPERT, cpu=0.9), "computing", "still computing: slow experts"),
    "eager experts": (evidence(STEP, EAGER, cpu=0.9), "computing", "still computing: slow experts"),
    "collective": (evidence(STEP, *REDUCE), "collective", "waiting in a collective (all_reduce)"),
    "spinning in one": (evidence(*DEEPSPEED, cpu=1.0), "collective", "waiting in a collective (all_reduce)"),
    "in a thread of the backward pass": (
        evidence(BACKWARD, others=REDUCE), "collective", "waiting in a collective (all_reduce)",
    ),
    "inside of the backward pass": (evidence(BACKWARD), "collective", "inside of the backward pass"),
    "a backward pass that computes": (evidence(BACKWARD, cpu=0.8), "computing", "still computing"),
    "another thread's collective": (evidence(STEP, others=REDUCE), "blocked", "blocked, not computing"),
    "loader": (evidence(LOADER), "data", "waiting for data"),
    "tokenising": (evidence(TOKENISING, cpu=1.0), "data", "waiting for data (1.0 cores busy), in chat"),
    "disk state": (evidence(STEP, disk_waits=0.8), "disk", "waiting for disk (reading or writing)"),
    "file": (evidence(STEP, file_call="read of /m/a.safetensors"), "disk", "(read of /m/a.safetensors)"),
    "network": (evidence(HUB), "network", "waiting for the network"),
    "another's compiler": (
        evidence(Frame("/site/torch/utils/file_baton.py", 50, "wait")), "compiling",
        "waiting until another process has compiled, in file_baton.py:50 wait",
    ),
    "compiler": (evidence(STEP, *REDUCE, building="cc1plus"), "compiling", "compiling (cc1plus runs)"),
    "modules": (evidence(TOKENISING, IMPORT, cpu=0.9), "disk", "loading Python modules from disk"),
    "nothing": (evidence(STEP), "blocked", "blocked, not computing (0.0 cores busy), in stage_trainer.py:80"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_process(name: str) -> None:
    seen, kind, said = CASES[name]
    found = judge(seen, processes=2)
    assert found.kind == kind
    assert said in found.said


def test_one_process_alone_waits_for_no_other_in_its_backward_pass() -> None:
    assert judge(evidence(BACKWARD), processes=1).kind == "blocked"


def test_without_any_stack_there_is_an_answer() -> None:
    assert judge(replace(evidence(), frames=()), processes=1).said.endswith("in unknown code")


def report(
    rank: int, kind: str, where: str = "training, step 4", said: str = "", operation: str = ""
) -> Report:
    return Report(rank, where, 7, 60.0, Seen(kind, said or kind, operation), "")  # type: ignore[arg-type]


def test_one_process_alone_has_no_rank() -> None:
    assert verdict({0: report(0, "disk", said="waiting for disk")}, 1) == ["waiting for disk"]


def test_ranks_that_wait_name_the_one_that_keeps_them() -> None:
    waiting = [report(rank, "collective", operation="all_reduce") for rank in (0, 1, 3)]
    found = verdict({r.rank: r for r in (*waiting, report(2, "data", said="waiting for data"))}, 4)
    assert found == [
        "ranks 0, 1, 3 wait in a collective, all_reduce (training, step 4), for rank 2",
        "rank 2 (training, step 4): waiting for data",
    ]


def test_a_rank_that_does_not_answer_is_waited_for() -> None:
    assert verdict({0: report(0, "collective", operation="barrier")}, 2) == [
        "rank 0 waits in a collective, barrier (training, step 4), for rank 1",
        "rank 1 does not answer: gone, or held inside of C code",
    ]


def test_ranks_that_went_different_ways() -> None:
    here = report(0, "collective", "evaluate", operation="all_gather_object")
    there = report(1, "collective", operation="all_reduce")
    assert verdict({0: here, 1: there}, 2) == [
        "the ranks wait in different collectives and will never meet:",
        "rank 0: all_gather_object (evaluate)",
        "rank 1: all_reduce (training, step 4)",
    ]


def test_all_ranks_at_the_same_place() -> None:
    found = verdict({rank: report(rank, "collective", operation="all_reduce") for rank in (0, 1)}, 2)
    assert found == [
        "ranks 0, 1 wait in a collective, all_reduce (training, step 4), at the same place: what is between "
        "them does not answer, or is slow"
    ]
