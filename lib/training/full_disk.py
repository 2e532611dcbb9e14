"""A disk that is full while a run writes: said with a remedy, whichever library met it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.files import FULL_DISK
from lib.settings.errors import InputError, Problem, RunError

# torch and safetensors tell the cause in words only.
IN_WORDS = ("PytorchStreamWriter failed", "unexpected pos", *map(os.strerror, FULL_DISK))


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Raises RunError when the block fails because nothing more can be written to `folder`; any other error
    is left as it is."""
    try:
        yield
    except (InputError, RunError):  # explained already
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise RunError(
            Problem(
                where=str(folder),
                value=f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free",
                expected=f"space to write ({' '.join(str(error).split())[:120]})",
                remedy="free some (quotas and ulimit -f count too); what was saved before is whole, and the "
                "same command goes on from there",
            )
        ) from error


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        if not isinstance(error, OSError) and any(words in str(error) for words in IN_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
