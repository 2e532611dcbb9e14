"""The steps and rows of a plan against transformers' and accelerate's own loops."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.order.order import TrainingOrder
from lib.data.order.schedule import Schedule


def batches_of_accelerate(order: list[int], batch: int, processes: int) -> list[list[list[int]]]:
    """Per process, the batches of one epoch."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    return [
        list(BatchSamplerShard(BatchSampler(order, batch, drop_last=False), processes, rank))
        if processes > 1
        else list(BatchSampler(order, batch, drop_last=False))
        for rank in range(processes)
    ]


def rows_of_a_run(schedule: Schedule, steps: int) -> Counter[int]:
    """Rows as the trainer's loop takes them: an epoch's batches in groups of `accumulation`, a step each."""
    seen: Counter[int] = Counter()
    taken, epoch = 0, 0
    while taken < steps:
        shards = batches_of_accelerate(schedule.order.epoch(epoch), schedule.batch, schedule.processes)
        for start in range(0, len(shards[0]), schedule.accumulation):
            if taken == steps:
                break
            for shard in shards:
                seen.update(row for batch in shard[start : start + schedule.accumulation] for row in batch)
            taken += 1
        epoch += 1
    return seen


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.floats(0.1, 3),
    st.sampled_from([-1, -1, 1, 7]),
    st.integers(0, 3),
)
def test_the_plan_counts_the_rows_that_the_trainers_loop_takes(
    rows: int, batch: int, accumulation: int, processes: int, epochs: float, max_steps: int, seed: int
) -> None:
    schedule = Schedule(TrainingOrder(rows, seed), batch, accumulation, processes, epochs, max_steps)
    assert +schedule.times() == rows_of_a_run(schedule, schedule.steps)


def test_a_sequence_counts_for_all_its_rows() -> None:
    packs = ((3, 0), (1,), (2, 4, 5))
    schedule = Schedule(TrainingOrder(3, 7), 1, 2, 1, epochs=1.5, packs=packs)
    assert (schedule.steps_per_epoch, schedule.steps) == (2, 3)
    first_step = [row for pack in schedule.epoch(0)[:2] for row in packs[pack]]
    assert schedule.times(1) == Counter(first_step)
    again = [row for pack in schedule.epoch(1)[:2] for row in packs[pack]]
    assert schedule.times() == Counter(range(6)) + Counter(again)


@given(st.integers(1, 60), st.integers(1, 4), st.floats(0.1, 3))
def test_one_process_sees_every_row_as_often_as_there_are_epochs(
    rows: int, batch: int, epochs: float
) -> None:
    """⌊epochs⌋ or one more time each; at a whole number exactly so often."""
    schedule = Schedule(TrainingOrder(rows, 1), batch, 1, 1, epochs)
    times = schedule.times()
    seen = {times[row] for row in range(rows)}
    whole = schedule.steps // schedule.steps_per_epoch
    assert seen <= ({whole} if schedule.steps % schedule.steps_per_epoch == 0 else {whole, whole + 1})
    assert abs(times.total() - epochs * rows) <= batch * (1 + epochs)


@pytest.mark.parametrize(("processes", "batch"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_the_same_rows_in_the_same_steps_for_any_number_of_processes(processes: int, batch: int) -> None:
    """Where the global batch is the same and divides the epoch."""
    order = TrainingOrder(48, 3407, tuple(range(48)), "root")
    one, many = Schedule(order, 8, 1, 1, 1.5), Schedule(order, batch, 1, processes, 1.5)
    for steps in range(one.steps + 1):
        assert one.times(steps) == many.times(steps)
    assert one.epoch(0) == many.epoch(0)


def test_very_many_steps_are_counted_at_once() -> None:
    """On two processes, with rows that fill up the batches: their number is right, none is far from even."""
    schedule = Schedule(TrainingOrder(5, 1), 2, 1, 2, epochs=1, max_steps=10**11)
    times = schedule.times()
    assert sum(times.values()) == 4 * 10**11
    assert max(times.values()) - min(times.values()) <= 2
