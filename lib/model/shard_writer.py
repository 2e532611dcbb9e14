"""Writes the shards of a merged model: the original's bytes, with the changed matrices in their places.

Types and shapes stay, so header, names and offsets stay too. What does not change is never parsed: a shard
without any change is shared with the original (reflink, else hard link), the rest of a changed one is copied
by the kernel. The model is never loaded; matrices are merged in parallel within a bound on memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lib.heartbeat import beat
from lib.model.checkpoint_layout import ParameterMerge
from lib.model.low_rank_sum import Workspace, merge_matrix, read_factors, working_bytes
from lib.model.merge_proof import Tally
from lib.model.threads import threads
from lib.model.weight_files import Checkpoint

MEMORY_BOUND = 2**31
# The request of Linux that makes one file share the blocks of another (ioctl_ficlonerange(2)).
FICLONE = 0x40049409
COPY_CHUNK = 2**24
# A file system, or the kernel, cannot do what was asked: there is a plainer way to the same end.
UNSUPPORTED = frozenset(
    {
        errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL,
        errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EMLINK,
    }
)  # fmt: skip

Range = tuple[int, int]


def changed_shards(checkpoint: Checkpoint, merges: Sequence[ParameterMerge]) -> list[Path]:
    changed = {matrix.tensor.file for merge in merges for matrix in merge.matrices}
    return [shard for shard in checkpoint.shards if shard in changed]


def write_shards(
    checkpoint: Checkpoint, merges: Sequence[ParameterMerge], folder: Path, *, memory: int = MEMORY_BOUND
) -> dict[str, Tally]:
    """Write all shards into `folder`, each on disk (fsync) at the end. Returns what was done to each tensor
    on which an adapter acts, by its name.

    Raises InputError when an adapter's factors are of no use, OSError when the disk is full.
    """
    changed = changed_shards(checkpoint, merges)
    for shard in checkpoint.shards:
        if shard not in changed:
            share_file(shard, folder / shard.name)
    with ExitStack() as files:
        sources = {shard: files.enter_context(_opened(shard, os.O_RDONLY)) for shard in changed}
        targets = {
            shard: files.enter_context(_opened(folder / shard.name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
            for shard in changed
        }
        for shard, target in targets.items():
            _copy_unchanged(sources[shard], target, _changed_ranges(merges, shard))
        tallies = _merge_all(merges, sources, targets, memory)
        for target in targets.values():
            os.fsync(target)
    return tallies


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def share_file(source: Path, target: Path) -> None:
    """`target` with the content of `source`, at no cost in space where the file system allows it.

    Whoever writes a model's files replaces them; a hard link would follow a change in place.
    """
    source = source.resolve()  # files of the Hub's cache are links
    with _opened(source, os.O_RDONLY) as original, _opened(target, os.O_WRONLY | os.O_CREAT) as copy:
        if _clone(original, copy):
            os.fsync(copy)
            return
    target.unlink()
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """A copy of its own, on disk at the end."""
    with _opened(source, os.O_RDONLY) as original, _opened(target, os.O_WRONLY | os.O_CREAT) as copy:
        _copy_range(original, copy, (0, os.fstat(original).st_size))
        os.fsync(copy)


def _clone(source: int, target: int) -> bool:
    """Whether `target` now shares all blocks of `source`."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def _copy_unchanged(source: int, target: int, changed: Sequence[Range]) -> None:
    if _clone(source, target):
        return
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    begin = 0
    for first, last in [*changed, (size, size)]:
        _copy_range(source, target, (begin, first))
        begin = last


def _changed_ranges(merges: Sequence[ParameterMerge], shard: Path) -> list[Range]:
    matrices = (matrix for merge in merges for matrix in merge.matrices if matrix.tensor.file == shard)
    return sorted((matrix.offset, matrix.offset + matrix.bytes) for matrix in matrices)


def _copy_range(source: int, target: int, bounds: Range) -> None:
    """Copy bytes without bringing them into this process, where the kernel can."""
    position, end = bounds
    while position < end:
        length = min(end - position, COPY_CHUNK)
        try:
            count = os.copy_file_range(source, target, length, position, position)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            count = os.pwrite(target, os.pread(source, length, position), position)
        if not count:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        position += count
        beat()


def _merge_all(
    merges: Sequence[ParameterMerge], sources: Mapping[Path, int], targets: Mapping[Path, int], memory: int
) -> dict[str, Tally]:
    """One task a parameter, so that its factors are read once; large ones first, so that none is left over
    for a single worker at the end."""
    found: dict[str, Tally] = defaultdict(Tally)
    tasks = sorted(merges, key=lambda merge: -sum(matrix.bytes for matrix in merge.matrices))
    # Workers take one core each: threads inside their small products would only wait for each other.
    with threads(1), ThreadPoolExecutor(_workers(merges, memory)) as pool:
        running = [pool.submit(_merge_parameter, merge, sources, targets) for merge in tasks]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            for future in running:
                if future.done():
                    future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for merge, future in zip(tasks, running, strict=True):
            for matrix, tally in zip(merge.matrices, future.result(), strict=True):
                found[matrix.tensor.name] += tally
    return dict(found)


def _merge_parameter(
    merge: ParameterMerge, sources: Mapping[Path, int], targets: Mapping[Path, int]
) -> list[Tally]:
    factors = read_factors(merge)
    space = Workspace(merge.matrices[0])
    tallies = []
    for matrix in merge.matrices:
        if not space.fits(matrix):
            space = Workspace(matrix)
        source, target = sources[matrix.tensor.file], targets[matrix.tensor.file]
        tallies.append(merge_matrix(matrix, factors, source, target, space))
        beat()
        # Begins to write to disk while the next one is summed, and does not wait: fsync finds little left.
        os.posix_fadvise(target, matrix.offset, matrix.bytes, os.POSIX_FADV_DONTNEED)
    return tallies


def _workers(merges: Collection[ParameterMerge], memory: int) -> int:
    """As many as there are cores, and as the memory bound allows for the largest parameter."""
    largest = max(working_bytes(merge) for merge in merges)
    return max(1, min(len(os.sched_getaffinity(0)), len(merges), memory // largest))


def bytes_to_write(checkpoint: Checkpoint, merges: Sequence[ParameterMerge], folder: Path) -> int:
    """Disk space that the merged shards take at most: those that can be linked take none."""
    linked = os.stat(checkpoint.shards[0]).st_dev == os.stat(folder).st_dev
    shards = changed_shards(checkpoint, merges) if linked else checkpoint.shards
    return sum(shard.stat().st_size for shard in shards)
