"""However the work is cut and shared out, the files are the same."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventually import PATIENCE
from expert_checkpoints import in_shards

from lib.model import low_rank_sum, shard_writer
from lib.model.adapter_files import read_adapter
from lib.model.checkpoint_layout import ParameterMerge, parameter_of, plan_merge
from lib.model.low_rank_sum import working_bytes
from lib.model.merge_proof import Tally
from lib.model.shard_writer import _workers, write_shards
from lib.model.weight_files import Checkpoint, read_checkpoint


@pytest.fixture
def planned(
    tiny_model: Callable[..., Path], trained_adapter: Callable[..., Any], tmp_path: Path
) -> tuple[Checkpoint, tuple[ParameterMerge, ...]]:
    base = in_shards(
        tiny_model("mixtral", "bfloat16"), tmp_path / "base", lambda name: sum(name.encode()) % 2
    )
    adapters = [read_adapter(trained_adapter(base, stage)[0]) for stage in (1, 2)]
    checkpoint = read_checkpoint(base)
    return checkpoint, plan_merge(checkpoint, adapters)


def written(planned: Any, folder: Path) -> tuple[dict[str, bytes], dict[str, Tally]]:
    folder.mkdir()
    tallies = write_shards(*planned, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, tallies


@pytest.mark.parametrize("block", [1, 32, 100, 24 * 7])
def test_blocks_of_any_height(
    block: int, planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single row at a time, a few rows with some left over, and all at once."""
    expected, whole = written(planned, tmp_path / "whole")
    monkeypatch.setattr(low_rank_sum, "BLOCK", block)
    files, tallies = written(planned, tmp_path / "blocks")
    assert files == expected
    for name, tally in tallies.items():
        assert tally.changed == whole[name].changed is True
        assert tally.kept == pytest.approx(whole[name].kept, rel=1e-5)
        assert tally.noise == pytest.approx(whole[name].noise, rel=1e-4)


def test_only_what_does_not_change_is_copied(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, merges = planned
    real, copied = os.copy_file_range, []
    monkeypatch.setattr(shard_writer, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", lambda *a: copied.append(real(*a)) or copied[-1])
    written(planned, tmp_path / "copied")
    changed = sum(matrix.bytes for merge in merges for matrix in merge.matrices)
    assert sum(copied) == checkpoint.bytes - changed


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers(
    workers: int, planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "_workers", lambda *_: 1)
    expected = written(planned, tmp_path / "one")
    monkeypatch.setattr(shard_writer, "_workers", lambda *_: workers)
    assert written(planned, tmp_path / "many") == expected


def test_workers_share_the_cores_within_the_memory(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, merges = planned
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    largest = max(working_bytes(merge) for merge in merges)
    assert _workers(merges, 100 * largest) == 8
    assert _workers(merges, 3 * largest) == 3
    assert _workers(merges, 1) == 1
    assert _workers(merges[:2], 100 * largest) == 2


def test_a_failing_worker_stops_the_others(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, called_off = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            called_off.set()
            super().shutdown(wait=wait)

    def fail(*_: Any) -> Any:
        started.append(threading.get_ident())
        assert len(started) == 1 or called_off.wait(PATIENCE)  # by another thread, which needs its turn
        raise OSError("no more")

    monkeypatch.setattr(shard_writer, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(shard_writer, "_workers", lambda *_: 1)
    monkeypatch.setattr(shard_writer, "merge_matrix", fail)
    with pytest.raises(OSError, match="no more"):
        written(planned, tmp_path / "failed")
    assert len(started) <= 2 < len(planned[1])


@pytest.mark.parametrize(
    ("on_disk", "parameter"),
    [
        ("model.layers.3.mlp.experts.7.up_proj.weight", "model.layers.3.mlp.experts.gate_up_proj"),
        ("model.layers.3.block_sparse_moe.experts.17.w2.weight", "model.layers.3.mlp.experts.down_proj"),
        ("model.layers.3.block_sparse_moe.gate.weight", "model.layers.3.mlp.gate.weight"),
        (
            "model.layers.3.mlp.shared_expert.up_proj.weight",
            "model.layers.3.mlp.shared_expert.up_proj.weight",
        ),
        ("model.layers.3.mlp.experts.gate_up_proj", "model.layers.3.mlp.experts.gate_up_proj"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_on_disk_and_in_the_model(on_disk: str, parameter: str) -> None:
    assert parameter_of(on_disk) == parameter


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_names_agree_with_those_of_transformers(family: str) -> None:
    """Its own table says which tensors on disk become which parameter, and how they are put together."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter

    converters = [c for c in get_checkpoint_conversion_mapping(family) if isinstance(c, WeightConverter)]
    assert len(converters) == 2
    for converter in converters:
        (target,) = converter.target_patterns
        found = {
            parameter_of(f"m{'' if p[0] == '.' else '.'}{p.replace('*', '4')}")
            for p in converter.source_patterns
        }
        assert found == {f"m{'' if target[0] == '.' else '.'}{target}"}
        assert {type(step) for step in converter.operations} <= {MergeModulelist, Concatenate}
    gate_first = next(c for c in converters if len(c.source_patterns) == 2).source_patterns[0]
    assert "gate_proj" in gate_first or "w1" in gate_first
