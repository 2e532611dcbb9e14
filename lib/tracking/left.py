"""What earlier runs had to tell and could not: stores were down, or the process died. MLflow is loaded only
where there is something of the kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lib.lineage.record import RECORD
from lib.settings import TrackingSettings
from lib.settings.errors import without_password
from lib.tracking.journal import JOURNALS, Journal
from lib.tracking.protocol import warn
from lib.tracking.run_file import RunFile, read_run_file

if TYPE_CHECKING:
    from lib.tracking.sender import Sender

SECONDS = 20.0


def send_left(stage_dir: Path, tracking: TrackingSettings) -> None:
    """Of a stage that is not run, because it is complete; waits for a store that answers."""
    senders = begin_sending([stage_dir], tracking)
    for sender in senders:
        sender.wait(lambda sender=sender: not sender.is_alive(), SECONDS)  # type: ignore[misc]


def begin_sending(folders: Iterable[Path], tracking: TrackingSettings) -> list[Sender]:
    """A sender at work for each journal that was left, by a complete stage or by a run that is not continued.
    Such a run is over: KILLED, unless its stage is complete."""
    senders = []
    for path in (path for folder in folders for path in sorted(folder.glob(JOURNALS))):
        file = read_run_file(path.parent)
        own = file is not None and file.journal == path.name
        complete = (path.parent / RECORD).is_file()
        if own and not complete:
            continue  # it may go on
        status = "FINISHED" if own else "KILLED"
        try:
            sender = _sender(path, file if own else None, tracking, status=status)
        except Exception as error:  # see Quietly: what lies there may be anything
            warn(f"MLflow, {path}", error)
            continue
        if sender:
            sender.start()
            sender.close(remove=True)
            senders.append(sender)
    return senders


def _sender(path: Path, file: RunFile | None, tracking: TrackingSettings, *, status: str) -> Sender | None:
    """None where the journal is somebody's, empty, or for a store whose password is not known any more."""
    from lib.tracking.mlflow_store import load_mlflow
    from lib.tracking.mlflow_tracker import sender_of

    try:
        journal = Journal(path)
    except OSError:
        return None
    first = next(journal.entries(), None)
    uri = _address(first["store"], tracking) if first and first["op"] == "run" else ""
    if first is None or not uri:
        journal.close()
        return None
    *_, last = journal.entries()
    if last["op"] != "finish":
        journal.add({"op": "finish", "status": status, "time": last["time"]})
    load_mlflow()
    run = file or RunFile("", first["experiment"], first["store"], path.name)
    return sender_of(uri, run, journal, keeps=file is not None)


def _address(store: str, tracking: TrackingSettings) -> str:
    if store == without_password(tracking.uri):
        return tracking.uri
    return "" if "***" in store else store
