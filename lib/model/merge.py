"""Builds the base of a stage: the untouched stage-0 base plus every earlier adapter.

W = round(W0 + sum of the ancestors' updates), summed exactly and rounded once, to the precision of the base's
own files. Chaining merges of rounded bases instead would add one rounding per stage. The result is keyed on
content: a folder that exists proves nothing. It is built beside its place and moved there when it is whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.files import write_json
from lib.model.adapter_files import SavedAdapter, misfit, read_adapter
from lib.model.base import StageBase
from lib.model.base_files import obtain_base_folder, side_files
from lib.model.checkpoint_layout import ParameterMerge, plan_merge
from lib.model.merge_proof import Tally, proof_notices, summarise
from lib.model.weight_files import Checkpoint, read_checkpoint
from lib.settings import InputError, ModelSettings

MERGE_RECORD = "merge.json"
MERGE_PROOF = "merge_proof.json"
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# For configuration, tokenizer and the proof's table.
SMALL_FILES = 2**25


def obtain_base(model: ModelSettings, adapters: Sequence[Path], destination: Path, *, key: str) -> StageBase:
    """The base with `adapters` (oldest first) merged into it, built at `destination` unless the
    same content (`key`) is already there.

    Raises InputError when an adapter does not fit the base or never learned, when rounding swallowed a
    target's whole update, when the base is quantised, or when the disk is full; `destination` is then left
    as it was.
    """
    name = model.base_model
    if not adapters:
        return StageBase(name, model.base_revision, name, merged=False, reused=False, seconds=0.0)
    reused = merged_key(destination) == key
    started = time.monotonic()
    if not reused:
        _build(model, adapters, destination, key)
    seconds = 0.0 if reused else time.monotonic() - started
    proof = _record(destination)["proof"]
    notices = proof_notices(proof, model.merge_min_kept)
    return StageBase(str(destination), "", name, True, reused, seconds, proof, notices)


def merged_key(folder: Path) -> str:
    """Content key of a finished merged base, empty when there is none or a file of it is gone."""
    try:
        record = _record(folder)
        sizes = {name: (folder / name).stat().st_size for name in record["files"]}
        return str(record["key"]) if sizes == record["files"] and record["proof"] else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MERGE_RECORD).read_text(encoding="utf-8")))


def _build(model: ModelSettings, adapters: Sequence[Path], destination: Path, key: str) -> None:
    checkpoint = read_checkpoint(obtain_base_folder(model))
    read = [read_adapter(adapter) for adapter in adapters]
    merges = plan_merge(checkpoint, read)
    with _built_aside(destination) as folder:
        _check_space(checkpoint, merges, folder)
        proof = _write_model(checkpoint, merges, read, folder)
        record = {"key": key, "base": model.base_model, "adapters": [str(adapter) for adapter in adapters]}
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
        write_json(folder / MERGE_RECORD, {**record, "proof": proof, "files": files})


def _write_model(
    checkpoint: Checkpoint, merges: Sequence[ParameterMerge], adapters: Sequence[SavedAdapter], folder: Path
) -> dict[str, Any]:
    """All files but the record. Returns the proof's summary; the table, tensor by tensor, is among the files.

    Raises InputError when a target did not move or became infinite.
    """
    from lib.model.shard_writer import copy_file, write_shards

    for name in side_files(checkpoint.folder):
        if name.name not in {MERGE_RECORD, MERGE_PROOF}:
            (folder / name).parent.mkdir(exist_ok=True)
            copy_file(checkpoint.folder / name, folder / name)
    tallies = write_shards(checkpoint, merges, folder)
    for merge in merges:
        _check_moved(merge, tallies)
    table = {name: tallies[name].to_json() for name in sorted(tallies)}
    write_json(folder / MERGE_PROOF, table)
    experts = {matrix.tensor.name for merge in merges if merge.is_experts for matrix in merge.matrices}
    used = sum(2 * len(adapter.updates) for adapter in adapters)
    return summarise(tallies, experts=frozenset(experts), adapter_tensors=used)


def _check_moved(merge: ParameterMerge, tallies: Mapping[str, Tally]) -> None:
    names = dict.fromkeys(matrix.tensor.name for matrix in merge.matrices)
    infinite = [name for name in names if not tallies[name].finite]
    latest = merge.updates[-1].adapter
    if infinite:
        raise misfit(latest, f"{infinite[0]} would hold values that are not finite")
    if not any(tallies[name].changed for name in names):
        raise misfit(
            latest,
            f"{merge.parameter} did not move: its whole update is smaller than the rounding of the base's "
            "number type; SFT_MERGE_MODE=stack would keep it beside the weights",
        )


@contextmanager
def _built_aside(destination: Path) -> Iterator[Path]:
    """A new folder beside `destination` that takes its place when the block is done, and goes when it fails.

    What was there before is whole until the new one is. It is moved away before it is deleted: a folder
    that is deleted in part might pass for whole.
    """
    folder, former = _beside(destination, ".part"), _beside(destination, ".old")
    for left in (folder, former):
        shutil.rmtree(left, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
        _sync(folder)
        if destination.exists():
            os.replace(destination, former)
        os.replace(folder, destination)
        _sync(destination.parent)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error.errno in FULL_DISK:
            raise _full(destination, "more") from error
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _beside(destination: Path, suffix: str) -> Path:
    return destination.with_name(destination.name + suffix)


def _sync(folder: Path) -> None:
    """The names in a folder, on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_space(checkpoint: Checkpoint, merges: Sequence[ParameterMerge], folder: Path) -> None:
    from lib.model.shard_writer import bytes_to_write

    needed = bytes_to_write(checkpoint, merges, folder) + SMALL_FILES
    if shutil.disk_usage(folder).free < needed:
        raise _full(folder, f"{needed / 1e9:.1f} GB")


def _full(place: Path, needed: str) -> InputError:
    return InputError.of(
        where=str(place.parent),
        key="SFT_OUT_LORA_DIR",
        value=f"{shutil.disk_usage(place.parent).free / 1e9:.1f} GB free",
        expected=f"{needed} disk space for the base with the earlier stages merged into it",
        remedy="free some (the *_merged_base folders of other stages can be built again), or put "
        "SFT_OUT_LORA_DIR on a larger disk",
    )
