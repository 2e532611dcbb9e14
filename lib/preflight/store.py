"""The checks of the tracking store. Tracking never stops a run, so they only warn."""

from __future__ import annotations

import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from lib.files import existing_folder
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict
from lib.settings.errors import without_password

SQLITE = "sqlite:///"
ANSWER_SECONDS = 3
LOCK_SECONDS = 0.5
REMEDY = (
    "training goes on all the same, and what is not sent is kept; to have it there at once mend the store "
    "before, or name another with MLFLOW_TRACKING_URI"
)
SERVERS = ("http://", "https://")


def tracking_store(subject: Subject) -> Iterable[Verdict]:
    """Whether MLflow's store can be written, where it is a database in a file; a server has its own check."""
    uri = subject.settings.tracking.uri
    if uri.startswith(SQLITE):
        return [_verdict(uri, _sqlite_fault(Path(uri.removeprefix(SQLITE))), "can be written")]
    if uri.startswith("file:") or "://" not in uri:
        return [_verdict(uri, "MLflow 3.17 takes no store of plain files", "")]
    return [] if uri.startswith(SERVERS) else [_verdict(uri, "", "was not tried")]


def tracking_server(subject: Subject) -> Iterable[Verdict]:
    """Whether MLflow's server answers. Takes seconds where it does not: a run, which needs no answer, does
    not ask."""
    uri = subject.settings.tracking.uri
    return [_verdict(uri, _server_fault(uri), "answers")] if uri.startswith(SERVERS) else []


def _verdict(uri: str, fault: str, fine: str) -> Verdict:
    shown = without_password(uri)
    if fault:
        return Verdict.warning("MLflow", f"{shown}: {without_password(fault)}", REMEDY)
    return Verdict.ok("MLflow", f"{shown} {fine}")


def _sqlite_fault(path: Path) -> str:
    folder = existing_folder(path.parent)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return f"the folder {folder} cannot be written"
    if not path.exists():
        return ""
    if not os.access(path, os.W_OK):
        return "the database cannot be written"
    try:
        # Asking for the writer's lock finds a locked, read-only or damaged database and changes nothing.
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _server_fault(uri: str) -> str:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        # Some servers hide this page; a server that answers at all is there.
        return "" if error.code in {401, 403, 404} else f"the server answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"the server does not answer ({error})"
