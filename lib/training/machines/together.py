"""Several processes, seen from one of them, on whatever machines they are."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lib.failures.explain import explain
from lib.settings.errors import InputError, Problem, RunError, without_password
from lib.training.machines.agreement import require_same
from lib.training.machines.alone import Alone
from lib.training.machines.copies import Copies, Kept, everything
from lib.training.machines.lifeline import Lifeline, Reason, bindable, new_token
from lib.training.machines.meeting import Meeting
from lib.training.machines.place import Place
from lib.training.processes.signals import code_of, said_of
from lib.training.processes.worker_words import Told, is_heard, say_last

P = ParamSpec("P")
T = TypeVar("T")
OWN_END_SECONDS = 5.0
"""What the main thread gets to find out by itself that another process has ended, and to say so."""
STOPPED_SECONDS = 10.0
"""The same where the other was asked to stop: all are, and save."""
LAST_SECONDS = 20.0
"""After which a process ends, whatever it is still at."""
SPEAKING_SECONDS = 2.0
"""What whoever failed first gets to say so."""
REASON_SECONDS = 4.0
"""How long a lost connection waits for the reason."""


UNTIED = (
    "[WARNING] no connection of one's own between the processes by way of {address} ({why}): when one ends, "
    "the others may notice by a time-out only"
)


class PeerEndedError(RunError):
    """This process ends because another one did."""

    follows = True

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(Problem(where=str(reason)))

    def __str__(self) -> str:
        return told(self.reason)


class Together(Alone):
    """Several processes."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting, self.place = meeting, meeting.place
        self.copies = Copies(meeting)
        self.lifeline = Lifeline(self.place, self._other_ended)
        self.places = [Place(*each) for each in meeting.all("places", _entries(self.place))]
        self._ending = False
        self._tie()

    @property
    def is_first(self) -> bool:
        return self.place.rank == 0

    @property
    def keeps_files(self) -> bool:
        return self.is_first or self.copies.is_apart

    def say(self, *lines: str) -> None:
        if self.is_first:
            super().say(*lines)

    def on_first(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        return work(*args, **kwargs) if self.is_first else None

    def decided(self, about: str, value: T) -> T:
        found: T = self.meeting.first(about, value)
        return found

    def agree(self, about: str, facts: Mapping[str, str]) -> None:
        require_same(self.meeting.all(about, dict(facts)), self.places)

    @contextmanager
    def leaders_first(self, what: str) -> Iterator[None]:
        with self._before_others(what, self.place.leads):
            yield

    @contextmanager
    def keepers_first(self, what: str) -> Iterator[None]:
        with self._before_others(what, self.keeps_files):
            yield

    @contextmanager
    def _before_others(self, what: str, first: bool) -> Iterator[None]:
        if first:
            yield
        self.meeting.all(what, None)
        if not first:
            yield

    def look(self, folder: Path) -> bool:
        self.copies.look(folder)
        return bool(self.copies.apart)

    def mirror(self, folder: Path, kept: Kept = everything, *, empties: bool = True) -> None:
        self.copies.mirror(folder, kept, empties=empties)

    def collect(self, folder: Path) -> None:
        self.copies.collect(folder)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        try:
            yield
        except (InputError, RunError):
            raise
        except KeyboardInterrupt:
            # A launcher that sees one process die asks its neighbours to stop: nobody wished that.
            if self.lifeline.reason and self.lifeline.reason.code < 128:
                raise self._followed() from None
            raise
        except Exception as error:
            found = explain(error)
            if found and found.failure.follows and self.lifeline.known.wait(REASON_SECONDS):
                raise self._followed() from error
            raise

    # ---- The end

    def failed(self, error: BaseException) -> None:
        """Tell the others what ends this process."""
        self._ending = True
        if isinstance(error, SystemExit) and not error.code:
            self.lifeline.end_well()
        elif not self.lifeline.known.is_set():
            self.lifeline.fail(_reason(self.place, error))

    def ends_with(self, text: str) -> None:
        self._ending = True
        self.lifeline.fail(Reason(self.place.rank, self.place.host, f"ended:\n{text}"))

    def done(self) -> None:
        """All is done: nobody has to end because this process does."""
        self.lifeline.end_well()

    def _tie(self) -> None:
        """Everybody's lifeline to rank 0."""
        machines = sum(place.leads for place in self.places)
        address = os.environ["MASTER_ADDR"] if machines > 1 else "127.0.0.1"
        token = self.meeting.first("token", new_token())
        where = bindable(address) if machines > 1 and self.is_first else address
        untied = self._tried(self.lifeline.listen, where, token) if self.is_first else ""
        port = self.meeting.first("lifeline", self.lifeline.port)
        if port and not self.is_first:
            untied = self._tried(self.lifeline.connect, address, port, token, self.places[0].host)
        self.lifeline.start()
        self.meeting.look_up = self._look_up
        if any(why := self.meeting.all("tied", untied)):
            self.say(UNTIED.format(address=address, why="; ".join(filter(None, why))))

    def _tried(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> str:
        """Why it could not be done; empty where it was."""
        try:
            work(*args, **kwargs)
        except OSError as error:
            return f"{self.place.name}: {error.strerror or error}"
        return ""

    def _look_up(self) -> None:
        if self.lifeline.known.is_set():
            raise self._followed()

    def _followed(self) -> PeerEndedError | SystemExit:
        """The end of this process, a moment after the other's: a launcher that sees one end ends its
        neighbours at once, and whoever has the reason is to say it first."""
        reason = self.lifeline.reason
        assert reason is not None
        self._ending = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self._speaks(reason) else signal.SIG_DFL)
        if not is_heard():
            time.sleep(SPEAKING_SECONDS)
        return PeerEndedError(reason) if self._speaks(reason) else Told("", follows=True)

    def _speaks(self, reason: Reason) -> bool:
        """One for each machine; where the reason is at home, whoever is left."""
        return self.place.leads or reason.host == self.place.host

    def _other_ended(self, reason: Reason) -> None:
        """In the lifeline's thread: end this process too, unless it does so by itself."""
        patience = OWN_END_SECONDS if reason.code < 128 else STOPPED_SECONDS
        time.sleep(patience)
        if not self._ending:
            if self._speaks(reason):
                say_last(told(reason), follows=True)
        else:
            time.sleep(LAST_SECONDS - patience)
        sys.stdout.flush()
        os._exit(reason.code)


def told(reason: Reason) -> str:
    """For whoever looks at another machine."""
    return f"ended, because {reason}"


def _reason(place: Place, error: BaseException) -> Reason:
    if isinstance(error, KeyboardInterrupt):
        return Reason(place.rank, place.host, f"was stopped: {said_of(error)}", code_of(error))
    follows = isinstance(error, Told) and error.follows
    return Reason(place.rank, place.host, f"failed:\n{_words(error)}", follows=follows)


def _words(error: BaseException) -> str:
    if isinstance(error, InputError | RunError | Told):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it ended with {error.code}"
    return without_password(f"{type(error).__name__}: {error}")


def _entries(place: Place) -> list[Any]:
    return [place.rank, place.processes, place.local_rank, place.host]
