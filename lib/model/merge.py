"""Builds the base of a stage: the untouched stage-0 base plus every earlier adapter.

W = round(W0 + sum of the ancestors' updates), summed exactly and rounded once, to the precision of the base's
own files. Chaining merges of rounded bases instead would add one rounding per stage. The result is keyed on
content: a folder that exists proves nothing. It is built beside its place and moved there when it is whole.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.files import FULL_DISK, built_aside, read_json, write_json
from lib.model.adapter_files import SavedAdapter, misfit, read_adapter
from lib.model.base import StageBase
from lib.model.base_files import obtain_base_folder, side_files
from lib.model.checkpoint_layout import ParameterMerge, plan_merge
from lib.model.merge_proof import Tally, proof_notices, summarise
from lib.model.weight_files import Checkpoint, read_checkpoint
from lib.settings import InputError, ModelSettings

MERGE_RECORD = "merge.json"
MERGE_PROOF = "merge_proof.json"
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
        return StageBase(
            name,
            model.base_revision,
            name,
            merged=False,
            reused=False,
            seconds=0.0,
            quantization=model.quantization,
        )
    found = find_merged(destination)
    reused = found.key == key and not found.changed
    started = time.monotonic()
    if not reused:
        with built_model(destination, blamed="SFT_OUT_LORA_DIR") as folder:
            proof = merge_adapters(model, adapters, folder)
            record = {
                "key": key,
                "base": model.base_model,
                "adapters": [str(adapter) for adapter in adapters],
            }
            files = {path.name: _stamp(path) for path in sorted(folder.iterdir()) if path.is_file()}
            write_json(folder / MERGE_RECORD, {**record, "proof": proof, "files": files})
    seconds = 0.0 if reused else time.monotonic() - started
    proof = _record(destination)["proof"]
    notices = (*found.notices(destination), *proof_notices(proof, model.merge_min_kept))
    return StageBase(
        str(destination), "", name, True, reused, seconds, proof, notices, quantization=model.quantization
    )


@dataclass(frozen=True)
class MergedFolder:
    """A merged base as it is found. `key` is empty where no finished one is."""

    key: str
    changed: tuple[str, ...]
    """Files that are not as the merge left them."""

    def notices(self, folder: Path) -> tuple[str, ...]:
        if not self.changed:
            return ()
        return (
            f"[WARNING] the merged base in {folder} was built again: {', '.join(self.changed)} "
            "changed, or was copied, since the merge wrote it",
        )


def find_merged(folder: Path) -> MergedFolder:
    """What lies at the place of a merged base."""
    try:
        record = _record(folder)
        written, key = dict(record["files"]), str(record["key"])
        if not record["proof"] or not all(isinstance(stamp, list) for stamp in written.values()):
            return MergedFolder("", ())
    except (OSError, ValueError, KeyError, TypeError):
        return MergedFolder("", ())
    return MergedFolder(key, tuple(name for name in written if not _unchanged(folder / name, written[name])))


def _stamp(path: Path) -> list[int]:
    """Size, and times of the last change in ns: while they stay, so does the content.

    The time of the inode's change cannot be set at will, but another link to the same file changes it: it is
    left out of a shard linked to the base's, whose content is in the key.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, *([stat.st_ctime_ns] if stat.st_nlink == 1 else [])]


def _unchanged(path: Path, written: Sequence[int]) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns][: len(written)] == list(written)


def _record(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / MERGE_RECORD))


def merge_adapters(model: ModelSettings, adapters: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write the merged model into `folder`, which exists and is empty; returns the proof's summary.

    Raises InputError as `obtain_base` does, and OSError with ENOSPC when there is too little space.
    """
    checkpoint = read_checkpoint(obtain_base_folder(model))
    read = [read_adapter(adapter) for adapter in adapters]
    merges = plan_merge(checkpoint, read)
    _check_space(checkpoint, merges, folder)
    return _write_model(checkpoint, merges, read, folder)


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
def built_model(destination: Path, *, blamed: str) -> Iterator[Path]:
    """`built_aside` for gigabytes. Raises InputError, with `blamed` as its key, for a full disk and when
    another process is building the same folder."""
    try:
        with built_aside(destination) as folder:
            yield folder
    except BlockingIOError as error:
        raise InputError.of(
            where=str(destination),
            key=blamed,
            value="another process is building this folder",
            expected="one process at a time",
            remedy="wait until it is done, or choose another folder",
        ) from error
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise InputError.of(
            where=str(destination.parent),
            key=blamed,
            value=f"{shutil.disk_usage(destination.parent).free / 1e9:.1f} GB free",
            expected=f"disk space for the base with adapters merged into it ({error.strerror})",
            remedy="free some (the *_merged_base folders of other stages can be built again), or choose "
            "a folder on a larger disk",
        ) from error


def _check_space(checkpoint: Checkpoint, merges: Sequence[ParameterMerge], folder: Path) -> None:
    from lib.model.shard_writer import bytes_to_write

    needed = bytes_to_write(checkpoint, merges, folder) + SMALL_FILES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed")
