"""One run at a time in a folder, by a lock that says who holds it."""

import contextlib
import datetime
import fcntl
import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffsep_jax.errors import UserError
from diffsep_jax.files import make_folder, write_errors
from diffsep_jax.runtime import is_primary, wait_for_all

LOCK_FILE = "lock"

# How often a run updates the time of its lock, which tells other hosts that it is alive.
_BEAT_SECONDS = 10.0

# A host may see a new file of another one this much later: NFS caches for up to a minute.
_VISIBLE_SECONDS = 70.0


@contextlib.contextmanager
def only_run_of_all(folder: Path) -> Iterator[None]:
    """`only_run` for a run of several processes, all of which call it: process 0 has the lock.

    Raises:
      UserError: as `only_run`, in process 0; or, in all, some do not see the lock in `folder`.
    """
    with only_run(folder) if is_primary() else contextlib.nullcontext():
        if jax.process_count() > 1:
            path = folder / LOCK_FILE
            wait_for_all("the folder is locked")
            # A killed run may have left another lock on a disk that is not shared.
            held = int(multihost_utils.broadcast_one_to_all(np.uint32(_checksum(path))))
            deadline = time.monotonic() + _VISIBLE_SECONDS
            while not (seen := _checksum(path) == held) and time.monotonic() < deadline:
                time.sleep(0.5)
            wait_for_all("every process has looked for the lock")
            blind = np.flatnonzero(~multihost_utils.process_allgather(np.array([seen])))
            if blind.size:
                raise UserError(
                    f"{folder}: process {', '.join(map(str, blind))} of {jax.process_count()} has"
                    " another folder of this name; expected one that all processes share, on a"
                    " network file system or in a mounted bucket"
                )
        yield


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Holds `folder`, which is made if it is missing, for one run.

    The system's own lock (flock) ends with its process, however that ends. Not every file system
    supports such locks, or shares them between hosts: there, a run that has not updated the time
    of its lock for three beats counts as dead.

    Raises:
      UserError: another run holds the folder, or the lock cannot be written.
    """
    make_folder(folder)
    path, host = folder / LOCK_FILE, socket.gethostname()
    with write_errors(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        file.seek(0)
        holder = file.read() or "another run"
        in_use = UserError(
            f"{folder}: in use by {holder}; wait for that run to end, or choose another folder"
        )
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            may_live = f" on {host} " not in holder
        except BlockingIOError:
            raise in_use from None
        except OSError:  # this file system has no locks
            may_live = True
        if may_live and os.fstat(file.fileno()).st_size:
            print(f"{folder}: held by {holder}; checking whether it is alive", file=sys.stderr)
            if _is_marked(path):
                raise in_use
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        with write_errors(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {host} since {now}")
            file.flush()
        ended = threading.Event()
        threading.Thread(target=_mark, args=(path, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            file.truncate(0)


def _mark(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _is_marked(path: Path) -> bool:
    """Whether a run updates the lock's time. NFS shows a new time only when a file is opened."""
    times = set()
    for pause in (0.0, 3 * _BEAT_SECONDS):
        time.sleep(pause)
        with path.open() as file:
            times.add(os.fstat(file.fileno()).st_mtime_ns)
    return len(times) > 1


def _checksum(path: Path) -> int:
    """Of the file's text, which names the process; 0 if it cannot be read."""
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:
        return 0
