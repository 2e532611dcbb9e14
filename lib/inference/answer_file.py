"""The output of `--input`: every row with its answer, in the order of the input, however often the run was
stopped on the way. Free of torch.

Batches are answered in another order than that of the rows, so there are two files. The journal says in its
first line what the answers are made from, and gets one more line for every batch, whole or not at all. The
output gets the rows whose turn has come. A run that begins again takes a half line off either and goes on
with the rows that neither has. In the end the journal is cut back to its first line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lib.data.reading.broken_rows import Row
from lib.settings import InputError

SUFFIX, JOURNAL, METRICS = ".jsonl", ".journal.jsonl", ".metrics.json"
ANEW = "answer anew with --force, or choose another --output"


class Reply(NamedTuple):
    """What the output adds to a row."""

    answer: str
    tokens: int
    stopped: bool
    """False for an answer that ran into the token limit."""


class AnswerFile:
    """The replies to `rows`, on disk.

    Raises InputError when the output holds something else: answers of another model or to another input, or
    lines that this command did not write.
    """

    def __init__(
        self, path: Path, rows: Sequence[Row], made_from: Mapping[str, str], *, anew: bool = False
    ) -> None:
        self.path, self.rows, self.made_from = path, rows, dict(made_from)
        self.journal, self.metrics = (path.with_suffix(suffix) for suffix in (JOURNAL, METRICS))
        self.replies: dict[int, Reply] = {}
        self._anew = anew
        self._forget()
        _check_place(path)
        _check_links(path, self.journal, self.metrics)
        if not self.journal.is_file() and path.is_file() and path.stat().st_size:
            expected = f"a new file, or one that this command began (with {self.journal.name} beside it)"
            raise _refused(path, "holds something else", expected, "choose another --output, or delete it")
        if self.journal.is_file():  # a refusal now loads no model for nothing
            with self.journal.open("rb") as journal:
                self._lock(journal, fcntl.LOCK_SH)
        if not anew:
            self._read_back()

    def _forget(self) -> None:
        self.replies.clear()
        # Up to here both files are whole, in bytes, and the output in rows.
        self._journal_size = self._output_size = self._written = 0

    @property
    def complete(self) -> bool:
        """Whether every row stands in the output."""
        return self._written == len(self.rows)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Both files open for `add`, mended, and locked against another run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            self._journal_file = opened.enter_context(_open(self.journal))
            self._lock(self._journal_file, fcntl.LOCK_EX)
            self._forget()
            if self._anew:
                self.metrics.unlink(missing_ok=True)
            else:
                self._read_back()  # another run may have been here while the model was loaded
            # The output goes first: without its journal nobody could say what it is made from.
            self._output_file = opened.enter_context(_open(self.path))
            self._output_file.truncate(self._output_size)
            self._journal_file.truncate(self._journal_size)
            for file in (self._output_file, self._journal_file):
                file.seek(0, os.SEEK_END)
            if not self._journal_size:
                self._journal_size = _append(self._journal_file, [{"made_from": self.made_from}])
            self._write_due()
            yield

    def add(self, replies: Mapping[int, Reply]) -> None:
        """Keep the answers of one batch, by row."""
        _append(self._journal_file, [{"replies": [[index, *reply] for index, reply in replies.items()]}])
        self.replies.update(replies)
        self._write_due()

    def _write_due(self) -> None:
        """Write what is answered up to the first row that is not."""
        lines: list[dict[str, Any]] = []
        while (index := self._written + len(lines)) in self.replies:
            lines.append({**self.rows[index], **self.replies[index]._asdict()})
        if lines:
            _append(self._output_file, lines)
            self._written += len(lines)
        if self.complete:
            self._journal_file.truncate(len(_encoded({"made_from": self.made_from})))

    def _lock(self, journal: BinaryIO, kind: int) -> None:
        """Until it is closed. Raises InputError while another run writes."""
        try:
            fcntl.flock(journal, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _refused(
                self.path, "another run is writing it", "one run at a time", "wait for it or stop it"
            ) from error

    def _read_back(self) -> None:
        journal, output = _whole_lines(self.journal), _whole_lines(self.path)
        if not journal:
            return
        header, *batches = (_parsed(self.journal, number, line) for number, line in enumerate(journal, 1))
        self._check_made_from(header.get("made_from"))
        for number, line in enumerate(output):
            self.replies[number] = self._written_reply(number, line)
        self._written = len(output)
        for batch in batches:
            for index, *reply in batch.get("replies", ()):
                self.replies.setdefault(index, Reply(*reply))
        self._journal_size, self._output_size = (sum(map(len, lines)) for lines in (journal, output))

    def _check_made_from(self, recorded: Any) -> None:
        if recorded == self.made_from:
            return
        known = recorded if isinstance(recorded, dict) else {}
        changed = [name for name, value in self.made_from.items() if known.get(name) != value]
        raise _refused(
            self.path,
            f"{_listed(changed)} changed since it was begun",
            "the same input, model and options as then: answers of two kinds would stand in one file",
            f"put back what changed, {ANEW}",
        )

    def _written_reply(self, number: int, line: bytes) -> Reply:
        """The reply in a line of the output, which must be the row with it."""
        content = _parsed(self.path, number + 1, line)
        if number < len(self.rows) and all(name in content for name in Reply._fields):
            reply = Reply(*(content[name] for name in Reply._fields))
            if _encoded({**self.rows[number], **reply._asdict()}) == line:
                return reply
        raise _refused(
            Path(f"{self.path}:{number + 1}"),
            "changed by hand",
            "the row with its answer",
            f"undo it; {ANEW}",
        )


def _check_place(path: Path) -> None:
    if path.suffix != SUFFIX or path.is_dir():
        raise _refused(path, "", f"a file that ends in {SUFFIX}", "choose such a name")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise _refused(path, "", f"a place that can be written; {nearest} cannot", "choose another --output")


def _check_links(*paths: Path) -> None:
    """They are truncated and written: a link would lead that elsewhere."""
    for path in paths:
        if path.is_symlink():
            expected = "a file of its own: nothing is written through a link"
            raise _refused(path, "is a symbolic link", expected, "remove it, or choose another --output")


def _open(path: Path) -> BinaryIO:
    """For reading and writing; made when it is not there, and left as it is when it is."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _append(file: BinaryIO, lines: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that are on disk when this returns."""
    content = b"".join(map(_encoded, lines))
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    return len(content)


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """Without what follows the last line end: a run was stopped while it wrote that."""
    content = path.read_bytes() if path.is_file() else b""
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _refused(Path(f"{path}:{number}"), "no JSON object", "a line that this command wrote", ANEW)
    return content


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "something"


def _refused(where: Path, value: str, expected: str, remedy: str) -> InputError:
    return InputError.of(where=str(where), key="--output", value=value, expected=expected, remedy=remedy)
