"""What a first and a second signal do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import PATIENCE

from lib.training.processes.signals import STOPPING, Interrupted, StopSignals, code_of, say_end

ROOT = Path(__file__).parents[4]


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    before = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told us to ignore it
    yield StopSignals.installed()
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """To this process, and wait for it."""
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_at_once_unless_somebody_waits_for_the_step(signals: StopSignals, number: int, code: int) -> None:
    with pytest.raises(Interrupted) as stopped:
        send(number)
    assert code_of(stopped.value) == code


def test_noted_while_steps_are_run(signals: StopSignals) -> None:
    with signals.at_step_boundaries():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one ends the process


def test_at_once_in_an_evaluation_between_steps(signals: StopSignals) -> None:
    with signals.at_step_boundaries():
        with pytest.raises(Interrupted), signals.at_once():
            send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import time; from lib.training.processes.signals import StopSignals; s = StopSignals.installed()\n"
        "with s.at_step_boundaries():\n    print('ready', flush=True)\n"
        "    while not s.received: time.sleep(0.01)\n"
        "    print('noted', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for said in (b"ready\n", b"noted\n"):
            assert process.stdout.readline() == said
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        StopSignals.installed()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, terminated)


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    say_end(KeyboardInterrupt())
    say_end(Interrupted(signal.SIGTERM, "saved"))
    say_end(Interrupted(signal.SIGTERM, ""))
    say_end(Interrupted(signal.SIGTERM))
    said = "interrupted; the same command goes on from what is done"
    assert capsys.readouterr().err == f"interrupted\nsaved\n{said}\n"
    assert code_of(KeyboardInterrupt()) == 130
