"""One run at a time in a folder."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from processes import places

from diffsep_jax import lock
from diffsep_jax.errors import UserError
from diffsep_jax.lock import LOCK_FILE, only_run

ELSEWHERE = "process 7 on elsewhere since 2026-01-01 00:00:00+00:00"
HERE = f"process 7 on {socket.gethostname()} since 2026-01-01 00:00:00+00:00"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.05)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def flock(file, operation):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_the_second_run_is_refused_and_told_of_the_first(tmp_path):
    with (
        only_run(tmp_path / "run"),
        pytest.raises(UserError) as error,
        only_run(tmp_path / "run"),
    ):
        pass
    assert f"run: in use by process {os.getpid()} on {socket.gethostname()} since " in str(
        error.value
    )
    with only_run(tmp_path / "run"):  # it has ended
        pass


def test_a_run_that_was_killed_holds_nothing(tmp_path):
    program = (
        "import os, pathlib, sys; from diffsep_jax.lock import only_run\n"
        "with only_run(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert ended.returncode == -9
    assert (tmp_path / LOCK_FILE).read_text()
    start = time.monotonic()
    with only_run(tmp_path):
        assert time.monotonic() - start < 5


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize(("holder", "fixture"), [(ELSEWHERE, "quick"), (HERE, "no_locks")])
def test_where_locks_do_not_reach_the_mark_decides(tmp_path, request, lives, holder, fixture):
    request.getfixturevalue(fixture)
    path = tmp_path / LOCK_FILE
    path.write_text(holder)
    ended = threading.Event()
    if lives:
        threading.Thread(target=lock._mark, args=(path, ended)).start()
    refused = pytest.raises(UserError, match=re.escape(holder))
    with refused if lives else contextlib.nullcontext(), only_run(tmp_path):
        pass
    ended.set()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"), only_run(tmp_path / "file"):
        pass


@pytest.mark.slow
def test_processes_that_do_not_share_the_folder_are_refused(tmp_path):
    """Two real ones, as on hosts with disks of their own."""
    program = (
        "import pathlib, sys\n"
        "from diffsep_jax import lock, runtime\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "lock._VISIBLE_SECONDS = 0.1\n"
        "with one_line_errors():\n"
        "    runtime.join_hosts(multihost=True)\n"
        "    with lock.only_run_of_all(pathlib.Path(sys.argv[1]) / 'run'): pass\n"
    )
    # A killed run of before left its lock there.
    (tmp_path / "second" / "run").mkdir(parents=True)
    (tmp_path / "second" / "run" / lock.LOCK_FILE).write_text("process 1 on another host")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / host)],
            env=os.environ | place,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, place in zip(("first", "second"), places(2), strict=True)
    ]
    for host, process in zip(("first", "second"), started, strict=True):
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 2, error
        assert f"error: {tmp_path / host / 'run'}: process 1 of 2 has another folder" in error
