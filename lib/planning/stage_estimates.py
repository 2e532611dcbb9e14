"""What a stage costs, from its settings, its rows and the hardware: the numbers of `--plan`."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from lib.data.mixing.ledger import MixLedger
from lib.files import existing_folder
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.record import intact_record
from lib.model.architecture import Architecture
from lib.model.base_files import base_folder
from lib.model.merge import find_merged
from lib.model.weight_files import weight_shards
from lib.planning.estimates import (
    Estimate,
    Workload,
    disk,
    measured_seconds,
    memory,
    planned_steps,
    seconds,
)
from lib.settings import InputError, StageSettings
from lib.training.sizing.batch import training_shape
from lib.training.sizing.devices import device_memory, present_card
from lib.training.sizing.speed import Speed, cpu_speed, gpu_speed
from lib.training.sizing.training_shape import TrainingShape
from lib.training.sizing.world import World


def workload(settings: StageSettings, ledger: MixLedger | None, processes: int) -> Workload | None:
    """None where neither rows nor SFT_MAX_STEPS say how much there is to do."""
    training, encoded = settings.training, ledger.encoded if ledger else None
    per_step = training.micro_batch * training.grad_accum * processes
    counted = ledger is not None and encoded is not None and encoded.tokens > 0
    if not counted and training.max_steps < 0 and ledger is None:
        return None
    rows = ledger.sequences if ledger else per_step * training.max_steps
    longest = settings.data.max_seq_len
    return Workload(
        rows=rows,
        tokens=encoded.tokens if counted and encoded else rows * longest,
        batch=training.micro_batch,
        accumulation=training.grad_accum,
        processes=processes,
        epochs=training.epochs,
        max_steps=training.max_steps,
        learned=encoded.supervised / encoded.tokens if counted and encoded else 1.0,
        row_length=encoded.tokens / encoded.rows if counted and encoded else longest,
        full_rows=not counted,
    )


def stage_estimates(
    stage: SurveyedStage, architecture: Architecture, ledger: MixLedger | None, world: World
) -> dict[str, Estimate]:
    """Memory and disk always; time where it is known how much there is to do, and how quick the device is."""
    settings = stage.settings
    load = workload(settings, ledger, world.processes)
    shape = _largest_pass(stage, architecture, ledger, world)
    device = device_memory(processes=world.processes, gpus=world.gpus, card=world.card)
    found = {"memory": memory(shape, device), "disk": _disk(stage, architecture, load, world)}
    time = _time(stage, shape, load, world) if load else None
    return {**found, "time": time} if time else found


def _disk(stage: SurveyedStage, architecture: Architecture, load: Workload | None, world: World) -> Estimate:
    training, lora = stage.settings.training, stage.settings.lora
    steps = planned_steps(load) if load else 0
    return disk(
        merged_bytes(stage, architecture),
        architecture.lora_parameters(lora.rank, lora.target_modules),
        # The best ones, the last, and the one that is being written.
        checkpoints=min(training.save_total_limit + 2, max(steps // training.save_steps, 1)),
        free=None if world.card else shutil.disk_usage(existing_folder(stage.settings.stage_dir)).free,
    )


def _time(stage: SurveyedStage, shape: TrainingShape, load: Workload, world: World) -> Estimate | None:
    """From this stage's last run, or its nearest ancestor's; else, and for other hardware, from FLOPs."""
    measured = None if world.card else _measured_speed(stage)
    if measured:
        return measured_seconds(load, measured)
    speed = _speed(world)
    return seconds(replace(shape, length=max(round(load.row_length), 1)), load, speed) if speed else None


def _speed(world: World) -> Speed | None:
    """Of one process; None on a GPU of a kind that is not in the table."""
    if not world.gpus:
        return cpu_speed(os.cpu_count() or 1, world.processes)
    card = world.card or present_card()
    return gpu_speed(card) if card and card.flops else None


def _largest_pass(
    stage: SurveyedStage, architecture: Architecture, ledger: MixLedger | None, world: World
) -> TrainingShape:
    """A pass of rows as long as the longest, where all were counted; else as long as they may be."""
    settings, counted = stage.settings, ledger.encoded if ledger else None
    known = ledger is not None and not ledger.estimated and not settings.data.packing
    return training_shape(
        settings,
        architecture,
        world,
        rows=settings.training.micro_batch,
        length=counted.longest if counted and known else settings.data.max_seq_len,
        checkpointing=settings.model.gradient_checkpointing == "1",
    )


def merged_bytes(stage: SurveyedStage, architecture: Architecture) -> int:
    """Of the merged base that is still to be built: as large as the stage-0 base, by its files where they are
    here."""
    if not (stage.chain.parents or stage.chain.missing) or stage.settings.model.merge_mode == "stack":
        return 0
    if stage.chain.key and find_merged(stage.settings.merged_base_dir).key == stage.chain.key:
        return 0
    folder = base_folder(stage.settings.model)
    try:
        return sum(shard.stat().st_size for shard in weight_shards(folder)) if folder else 0
    except InputError:
        return architecture.parameters * architecture.bytes_per_weight


def _measured_speed(stage: SurveyedStage) -> float | None:
    """Tokens per second of this stage's last run, else of its nearest ancestor's."""
    records = [
        intact_record(stage.settings.stage_dir),
        *(parent.record for parent in reversed(stage.chain.parents)),
    ]
    speeds = [record.training["tokens_per_second"] for record in records if record]
    return speeds[0] if speeds else None
