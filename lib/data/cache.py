"""Where prepared rows of large data sets are kept."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.settings.errors import InputError
from lib.settings.schema import DataSettings
from lib.settings.schema.data import NO_CACHE

LARGE_BYTES = 8 * 2**20
FOLDER = "lora-curriculum/data"


@dataclass(frozen=True)
class DataCache:
    """A folder for prepared rows, how large it may grow, and how many processes prepare rows for it."""

    root: Path
    processes: int
    limit: int
    """Bytes."""

    @classmethod
    def of(cls, data: DataSettings) -> "DataCache | None":
        """None where SFT_CACHE_DIR says `off`."""
        if data.cache_dir == NO_CACHE:
            return None
        root = Path(data.cache_dir) if data.cache_dir else default_root()
        return cls(root.absolute(), data.num_proc or len(os.sched_getaffinity(0)), int(data.cache_gb * 10**9))


def least_bytes(environ: Mapping[str, str] = os.environ) -> int:
    """Files of a data set below this are read into memory: that takes as long as looking into a cache. Where
    several processes train, one of them prepares everything, and the others find it there."""
    return 0 if int(environ.get("WORLD_SIZE", "1")) > 1 else LARGE_BYTES


def default_root() -> Path:
    """Under XDG_CACHE_HOME or ~/.cache. Raises InputError where the user has no home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (given if given.is_absolute() else Path.home() / ".cache") / FOLDER
    except RuntimeError as error:
        raise InputError.of(
            where="process environment",
            key="SFT_CACHE_DIR",
            value="",
            expected="a folder: this user has no home folder for it",
            remedy=f"set SFT_CACHE_DIR to a folder that can be written, or to {NO_CACHE}",
        ) from error
