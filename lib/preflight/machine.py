"""Checks of the machine against the stage, before anything is loaded. Free of torch, but where a check says
otherwise."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from lib.failures.explain import explain, known
from lib.failures.known import BATCH_MISMATCH, CPU_ONLY_TORCH, DISK_FULL
from lib.files import existing_folder
from lib.lineage.versions import library_version
from lib.planning.estimates import disk as disk_estimate
from lib.planning.stage_estimates import merged_bytes
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict
from lib.settings import InputError, Problem
from lib.training.sizing.savings import savings_lines
from lib.training.sizing.sizes import readable_bytes
from lib.training.zero import BATCH_KEYS, check_user_config

ESTIMATE_ERROR = 0.15
"""By how much the memory estimate may be off (docs/log.md)."""
CPU_FLAGS = Path("/proc/cpuinfo")


def torch_build(subject: Subject) -> Iterable[Verdict]:
    """A GPU needs torch's CUDA build. Read from torch's own file: importing it takes seconds."""
    cuda, version = built_for_cuda(), library_version("torch")
    if subject.world.gpus and not cuda:
        failure = known(CPU_ONLY_TORCH)
        gpus = f"{subject.world.gpus} GPU{'s' * (subject.world.gpus != 1)}"
        return [Verdict.known("torch", "failed", failure, f"{gpus} visible, torch {version} has no CUDA")]
    build = f"for CUDA {cuda}" if cuda else "for the CPU, and no GPU is visible"
    return [Verdict.ok("torch", f"{version}, built {build}")]


def built_for_cuda() -> str:
    """The CUDA version that the installed torch is built for; empty for the CPU build."""
    spec = importlib.util.find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        text = (Path(folder) / "version.py").read_text(encoding="utf-8")
        if found := re.search(r"^cuda[^=]*= *'([^']+)'", text, re.MULTILINE):
            return found[1]
    return ""


def deepspeed(subject: Subject) -> Iterable[Verdict]:
    """The user's DeepSpeed JSON against the batch of this stage on so many processes."""
    training, world = subject.settings.training, subject.world
    if training.deepspeed_config is None:
        return [Verdict.ok("DeepSpeed", world.line(training).strip())]
    try:
        check_user_config(training.deepspeed_config, training, world.processes)
    except InputError as error:
        return [Verdict.failed("DeepSpeed", _with_cause(problem)) for problem in error.problems]
    if not world.distributed:
        unused = f"{training.deepspeed_config} is not used: one CPU process has nothing to share out"
        return [Verdict.warning("DeepSpeed", unused, "start more processes with --nproc")]
    return [Verdict.ok("DeepSpeed", f"{training.deepspeed_config} agrees with the batch of the stage")]


def _with_cause(problem: Problem) -> Problem:
    if problem.key not in BATCH_KEYS:
        return problem
    return replace(problem, expected=f"{problem.expected}; {known(BATCH_MISMATCH).cause}")


def memory(subject: Subject) -> Iterable[Verdict]:
    """The estimate of one process at the longest row, against what there is."""
    batch, device = subject.stage.batch, subject.device
    if subject.base is None:
        return [_unknown_base("memory", subject)]
    if batch is None or batch.memory is None:
        why = batch.reasons[0] if batch else "the batch is not planned"
        return [Verdict.ok("memory", why)]
    length, total = subject.settings.data.max_seq_len, batch.memory.total
    rows = f"{batch.rows} row{'s' * (batch.rows != 1)} of {length:,} tokens"
    there = f"{readable_bytes(device.usable)} ({device.arithmetic})"
    found = f"about {readable_bytes(total)} for {rows}, of {there}"
    if total <= device.usable:
        return [Verdict.ok("memory", f"{found}: {batch.memory.arithmetic}")]
    advice = savings_lines(subject.settings, subject.architecture, subject.world, device.usable)
    remedy = "lower, the harmless ones first: " + "; ".join(advice)
    if batch.memory.weights > device.usable:
        alone = f"the weights alone take {readable_bytes(batch.memory.weights)}, whole in every process"
        remedy = f"take GPUs with more memory or a smaller base: {alone}"
    if not device.total or total * (1 - ESTIMATE_ERROR) <= device.total:
        return [Verdict.warning("memory", found, remedy)]
    whole = f"all of {'a GPU' if subject.world.gpus else 'this machine'}"
    expected = f"at most {readable_bytes(device.total)}, {whole}; the estimate is within {ESTIMATE_ERROR:.0%}"
    return [Verdict.failed("memory", Problem("memory", value=found, expected=expected, remedy=remedy))]


def _unknown_base(name: str, subject: Subject) -> Verdict:
    model = subject.settings.model.base_model
    enough = f"`hf download {model} config.json` fetches what is needed for it"
    return Verdict.warning(name, "not estimated: the base is not on this machine", enough)


def disk(subject: Subject) -> Iterable[Verdict]:
    """Room for the merged base, the adapter and its checkpoints. Before the rows are counted, how many
    checkpoints there will be is not known: one then."""
    architecture, settings = subject.architecture, subject.settings
    if subject.base is None:
        return [_unknown_base("disk", subject)]
    if architecture is None:
        return [Verdict.ok("disk", "not estimated: the sizes of this family of models are not known")]
    folder = existing_folder(settings.stage_dir)
    free = shutil.disk_usage(folder).free
    trainable = architecture.lora_parameters(settings.lora.rank, settings.lora.target_modules)
    planned = subject.plan.estimates.get("disk") if subject.plan else None
    needed = planned or disk_estimate(
        merged_bytes(subject.stage, architecture), trainable, checkpoints=1, free=free
    )
    if needed.value <= free:
        return [Verdict.ok("disk", f"about {needed.text}: {needed.arithmetic}")]
    problem = Problem(
        where=str(folder.absolute()),
        key="SFT_OUT_LORA_DIR",
        value=f"{readable_bytes(free)} free",
        expected=f"{needed.text}: {needed.arithmetic}",
        remedy=f"{known(DISK_FULL).remedy}; SFT_MERGE_MODE=stack needs no merged base",
    )
    return [Verdict.failed("disk", problem)]


def number_type(subject: Subject) -> Iterable[Verdict]:
    """bf16 where it is asked for, and whether the device computes in it. Imports torch."""
    from lib.model.base import choose_compute

    model = replace(subject.settings.model, attention="auto")  # what is asked for has its own check
    chosen = str(choose_compute(model).dtype).removeprefix("torch.")
    asked = f"SFT_DTYPE={model.dtype}"
    found = f"{asked}: computes in {chosen}"
    if chosen == "bfloat16" and not _has_bf16(on_gpu=subject.world.gpus > 0):
        where = "GPU" if subject.world.gpus else "CPU"
        return [
            Verdict.warning(
                "number type",
                f"{found}, which this {where} only emulates: right, but slow",
                "set SFT_DTYPE=auto, which takes fp32 there",
            )
        ]
    return [Verdict.ok("number type", found)]


def _has_bf16(*, on_gpu: bool) -> bool:
    if on_gpu:
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = CPU_FLAGS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))


def attention(subject: Subject) -> Iterator[Verdict]:
    """Which attention, and why not flash attention. An installed flash-attn is imported wherever it will be
    used: its binary may not fit this torch. Imports torch."""
    from lib.model.base import choose_compute

    if fault := flash_attention_fault():
        yield fault
    compute = choose_compute(subject.settings.model)
    yield Verdict.ok("attention", f"{compute.attention} ({compute.reason})")


def flash_attention_fault() -> Verdict | None:
    """A warning where flash-attn is installed and does not load; None where it does, or is not there."""
    if importlib.util.find_spec("flash_attn") is None:
        return None
    try:
        importlib.import_module("flash_attn")
    except (ImportError, OSError) as error:
        found = explain(error)
        if found:
            return Verdict.known("flash-attn", "warning", found.failure, found.said)
        return Verdict.warning(
            "flash-attn", f"installed, but does not load: {error}", "pip uninstall flash-attn"
        )
    return None
