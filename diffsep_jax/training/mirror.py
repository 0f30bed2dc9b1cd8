"""A run's work folder at a URL: the run works in a local folder, which is copied there.

URL/copied.json lists the files of the last complete copy, and is replaced when all are there;
checkpoints that it no longer lists are removed after that. So a copy that breaks off leaves the one
before. Files that change are replaced as a whole.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from diffsep_jax.errors import MachineError, UserError, describe
from diffsep_jax.files import user_cache, write_bytes
from diffsep_jax.training import log, run_config
from diffsep_jax.training.checkpoint import CHECKPOINTS
from diffsep_jax.urls import download, open_url

MODEL_FOLDER = "model"
"""Name of the folder that a run exports its model to."""

LIST = "copied.json"

_OTHERS = (run_config.FILE_NAME, log.FILE_NAME, f"{log.TENSORBOARD}/*", f"{MODEL_FOLDER}/[!.]*")
"""Patterns of the files that are copied besides checkpoints."""

Files = dict[str, list[int]]  # by name: size in bytes, time of the last change in ns


def local_folder(url: str) -> Path:
    """The folder in the user's cache for a run with its work folder at `url`."""
    return user_cache("runs") / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


class Mirror:
    """Copies `folder`, which one run at a time holds, to `url`."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._filesystem, self._root = open_url(url)
        self._there: Files | None = None  # the list of the last complete copy
        self._offered: Files | None = None  # the last list whose writing was begun
        self._copying = threading.Lock()

    def fill(self) -> None:
        """Replaces the folder by what is at the URL, unless its own copy is there, or nothing is.

        Raises UserError if that fails, or if the folder's copy has disappeared.
        """
        listed = self._folder / LIST
        try:
            self._there = self._read_list()
            if self._there == (json.loads(listed.read_bytes()) if listed.is_file() else None):
                return
            if self._there is None:
                raise FileNotFoundError(
                    f"no {LIST}, but a run was copied there; delete {self._folder} to start over"
                )
            print(f"{self._url}: copying the run there to {self._folder}")
            for name in (CHECKPOINTS, MODEL_FOLDER, log.TENSORBOARD):
                shutil.rmtree(self._folder / name, ignore_errors=True)
            # Other files may be newer than the list, by a copy that broke off.
            sizes = {n: s if _step(n) else None for n, (s, _) in self._there.items()}
            download(self._filesystem, self._root, sizes, self._folder)
        except Exception as error:  # every file system has its own
            raise UserError(f"{self._url}: cannot be resumed ({describe(error)})") from None
        for name, (_, time) in self._there.items():
            os.utime(self._folder / name, ns=(time, time))
        write_bytes(listed, json.dumps(self._there).encode())

    def start(self) -> None:
        """Starts a copy in the background, unless one is under way. A failure is printed."""
        if not self._copying.locked():
            threading.Thread(target=self.copy_or_print, daemon=True).start()

    def copy_or_print(self) -> None:
        """Copies as `copy` does, and prints a failure."""
        try:
            self.copy()
        except MachineError as error:
            print(error, file=sys.stderr)

    def copy(self) -> None:
        """Copies what has changed, after a copy that is under way. MachineError if that fails."""
        with self._copying:
            try:
                self._copy()
            except Exception as error:
                raise MachineError(
                    f"{self._url}: not copied ({describe(error)}); the copy before is still there,"
                    f" and {self._folder} has everything; the next checkpoint or run tries again"
                ) from None

    def _copy(self) -> None:
        files = self._list_folder()
        if files == self._there:
            return
        there = self._read_list()
        if there not in (self._there, self._offered):  # the last copy may have failed at its end
            raise FileExistsError("another run has copied its work there since this one started")
        self._there = there
        known = there or {}
        changed = [name for name, stamp in files.items() if known.get(name) != stamp]
        added = [name for name in changed if _step(name) and name not in known]
        frozen = self._folder / ".copying"  # links, as Orbax removes checkpoints meanwhile
        shutil.rmtree(frozen, ignore_errors=True)
        frozen.mkdir()
        for name in changed:
            (frozen / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(self._folder / name, frozen / name)
        self._remove_unlisted()
        for name in changed:
            if name not in added:
                self._replace(name)
        remote = [f"{self._root}/{name}" for name in added]
        self._filesystem.put([str(frozen / name) for name in added], remote)
        self._offered = files
        (frozen / LIST).write_text(json.dumps(files))
        self._replace(LIST)
        os.replace(frozen / LIST, self._folder / LIST)
        self._there = files
        self._remove_unlisted()
        shutil.rmtree(frozen, ignore_errors=True)

    def _replace(self, name: str) -> None:
        part = f"{self._root}/{name}.part"
        self._filesystem.put_file(str(self._folder / ".copying" / name), part)
        self._filesystem.mv(part, f"{self._root}/{name}")

    def _read_list(self) -> Files | None:
        try:
            return json.loads(self._filesystem.cat_file(f"{self._root}/{LIST}"))
        except FileNotFoundError:
            return None

    def _list_folder(self) -> Files:
        paths = [path for pattern in _OTHERS for path in self._folder.glob(pattern)]
        for checkpoint in (self._folder / CHECKPOINTS).glob("*"):
            if checkpoint.name.isdecimal():  # it is complete
                paths += filter(Path.is_file, checkpoint.rglob("*"))
        stats = {path.relative_to(self._folder).as_posix(): path.stat() for path in paths}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}

    def _remove_unlisted(self) -> None:
        steps = {_step(name) for name in self._there or {}}
        with contextlib.suppress(FileNotFoundError):
            for path in self._filesystem.ls(f"{self._root}/{CHECKPOINTS}", detail=False):
                step = path.rstrip("/").rpartition("/")[2]
                if step.isdecimal() and step not in steps:  # some list the folder itself
                    self._filesystem.rm(path, recursive=True)


@contextlib.contextmanager
def mirrored(url: str, folder: Path) -> Iterator[Mirror]:
    """Fills the folder from the URL, and copies it there at the end, whatever ends the block.

    Raises UserError if the URL cannot be read, MachineError if the last copy fails.
    """
    mirror = Mirror(url, folder)
    print(f"{url}: the run works in {folder}, which is copied to the URL")
    mirror.fill()
    mirror.copy()
    try:
        yield mirror
    except BaseException:
        mirror.copy_or_print()
        raise
    mirror.copy()
    print(f"copied to {url}")


def _step(name: str) -> str | None:
    """The step of the checkpoint that a file is part of, if it is."""
    first, *rest = name.split("/")
    return rest[0] if first == CHECKPOINTS else None
