"""A chat with infer.py in a terminal of its own."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tiny_curriculum import Curriculum

PATIENCE = 120.0
"""Seconds."""


class Terminal:
    """A chat at the other end of a pseudo-terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process, self.descriptor = process, descriptor
        self.shown = self.raw = ""
        """What is shown and not yet looked at; all of it, with what steers the terminal."""
        # A character may come in several parts.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def until(self, text: str) -> str:
        """What is shown next, as far as `text`."""
        assert self._shows(text, PATIENCE), self.shown
        before, _, self.shown = self.shown.partition(text)
        return before

    def press_ctrl_c_until(self, text: str) -> None:
        """Ctrl-C at a prompt, again after two seconds without `text`, as a person would.

        CPython's input() looks for signals only where one ends its select(): a signal that comes just
        before the select() starts waits for the next key.
        """
        begun = time.monotonic()
        self.type("\x03")
        while not self._shows(text, 2.0):
            assert time.monotonic() - begun < PATIENCE, self.shown
            self.type("\x03")
        self.until(text)

    def _shows(self, text: str, seconds: float) -> bool:
        begun = time.monotonic()
        while text not in self.shown and time.monotonic() - begun < seconds:
            if select.select([self.descriptor], [], [], 0.2)[0]:
                came = self._decoder.decode(os.read(self.descriptor, 65536))
                self.shown, self.raw = self.shown + readable(came), self.raw + came
        return text in self.shown


def readable(shown: str) -> str:
    """Without what steers the terminal."""
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|[\r\x07]", "", shown)


def in_its_own_terminal() -> None:
    """So that Ctrl-C becomes a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def chat(curriculum: Curriculum, *arguments: object) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = curriculum.infer.begun(*arguments, **streams, preexec_fn=in_its_own_terminal)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
