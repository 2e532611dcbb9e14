"""One process, which has nobody to wait for: code that runs in several need not ask how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from lib.training.machines.copies import Kept, everything

P = ParamSpec("P")
T = TypeVar("T")


class Alone:
    """One process: there is nobody to wait for or to agree with."""

    @property
    def is_first(self) -> bool:
        """Whether it speaks and decides for all."""
        return True

    @property
    def keeps_files(self) -> bool:
        """Whether it is the one that writes into the folders that this machine sees."""
        return True

    def say(self, *lines: str) -> None:
        """Print, once for all processes."""
        for line in lines:
            print(line, flush=True)

    def on_first(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run `work` in rank 0; the others do not wait."""
        return work(*args, **kwargs)

    def decided(self, about: str, value: T) -> T:
        """What rank 0 holds for true; plain data."""
        return value

    def agree(self, about: str, facts: Mapping[str, str]) -> None:
        """Raises InputError where a machine differs from rank 0's."""

    @contextmanager
    def leaders_first(self, what: str) -> Iterator[None]:
        """The first process of each machine goes through the block, then the others."""
        yield

    @contextmanager
    def keepers_first(self, what: str) -> Iterator[None]:
        """One process for all machines that share their files goes through the block, then the others."""
        yield

    def look(self, folder: Path) -> bool:
        """Find out which machines share `folder`; whether any does not."""
        return False

    def mirror(self, folder: Path, kept: Kept = everything, *, empties: bool = True) -> None:
        """See Copies."""

    def collect(self, folder: Path) -> None:
        """See Copies."""

    def ends_with(self, text: str) -> None:
        """Tell the others what ends this process, where it ends without an exception."""

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """A connection that is lost in the block, because another process ended, becomes PeerEndedError."""
        yield


ALONE = Alone()
