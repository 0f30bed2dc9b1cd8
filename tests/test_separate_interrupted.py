"""What ends a command from outside, signals or the output: nothing is left half-written."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest
from halving import Halving, noise, run, song

from diffsep_jax.audio import write
from diffsep_jax.errors import EXIT_PREEMPTED, PreemptedError, UserError, one_line_errors
from diffsep_jax.files import replacing

pytestmark = pytest.mark.usefixtures("halving")


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        (lambda: fail(KeyboardInterrupt), 130, "interrupted"),
        (lambda: fail(UserError("x")), 2, "error: "),
        (
            lambda: os.kill(os.getpid(), signal.SIGTERM),
            EXIT_PREEMPTED,
            "preempted: finished files stay",
        ),
    ],
)
def test_what_ends_a_command_leaves_nothing_half_written(
    tmp_path, monkeypatch, capsys, end, status, message
):
    def ended(self, mixture, start, *_):
        if start[0] > 0:
            end()
        return jnp.asarray(mixture)

    monkeypatch.setattr(Halving, "__call__", ended)
    path = song(tmp_path / "a.wav", noise(90_000, 2))
    with pytest.raises(SystemExit) as exit_:
        run(path, "--out", tmp_path / "out")
    assert exit_.value.code == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    run(song(tmp_path / "short.wav", noise(4000, 2)), "--out", tmp_path / "out")  # one chunk
    with pytest.raises(SystemExit):
        run(path, "--out", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["short"]


def test_a_second_signal_does_not_disturb_the_end(tmp_path, monkeypatch):
    """Ctrl-C again while the files are cleaned up, and the system's SIGTERM on top."""

    def interrupted(self, mixture, start, *_):
        if start[0] > 100_000:  # when something is being written
            os.kill(os.getpid(), signal.SIGINT)
        return jnp.asarray(mixture)

    def again(path):
        with replacing(path) as temporary:
            try:
                yield temporary
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned_up.append(path.name)

    cleaned_up: list[str] = []
    monkeypatch.setattr(Halving, "__call__", interrupted)
    monkeypatch.setattr(write, "replacing", contextlib.contextmanager(again))
    with pytest.raises(SystemExit) as exit_:
        run(song(tmp_path / "a.wav", noise(300_000, 2)), "--out", tmp_path / "out")
    assert exit_.value.code == 130
    assert cleaned_up == ["accompaniment.wav", "vocals.wav"]
    assert not (tmp_path / "out").exists()


def test_a_thread_that_is_left_does_not_hold_up_the_commands_end():
    """Python's own end would: it is skipped, with the same exit status."""
    code = (
        "import atexit, time\n"
        "from diffsep_jax import cli\n"
        "from diffsep_jax.commands import info\n"
        "from diffsep_jax.inference.stream import read_ahead\n"
        "def items():\n"
        "    yield 1\n"
        "    time.sleep(100)\n"
        "def interrupted(_):\n"
        "    for _ in read_ahead(items(), 1):\n"
        "        raise KeyboardInterrupt\n"
        "atexit.register(print, 'the end of Python')\n"
        "info.list_models = interrupted\n"
        "cli.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_output_that_nobody_reads_ends_in_one_line():
    code = (
        "import sys\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    while True:\n"
        "        print('{}', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == "stopped: nobody reads the output any more\n"
    assert process.wait() == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
@pytest.mark.parametrize("flush", [False, True])
def test_output_to_a_full_disk_ends_in_one_line(flush):
    """Also where what is printed is written at the end."""
    code = (
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        f"    print('words', flush={flush})\n"
    )
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.stderr == "stopped: the output cannot be written: No space left on device\n"
    assert result.returncode == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, PreemptedError])
def test_an_interrupt_in_a_callback_of_the_collector_is_not_lost(error):
    """JAX has such a callback, and Python drops what is raised in one."""

    def handle(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise error

    def callback(*_):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    def command():
        with one_line_errors():
            gc.callbacks.append(callback)
            gc.collect()
            time.sleep(10)

    before, interrupt = signal.signal(signal.SIGTERM, handle), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            command()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == (130 if error is KeyboardInterrupt else 75)
    assert signal.getsignal(signal.SIGINT) == interrupt
