"""Files that are written whole or not at all, and the folders for them."""

import errno
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from diffsep_jax.errors import MachineError, UserError


def check_writable(folder: Path) -> None:
    """Raises UserError unless a file can be written in `folder`, which need not exist yet."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written: {_reason(error)}; choose another folder"
        ) from None


def user_cache(name: str) -> Path:
    """A folder in the user's cache ($XDG_CACHE_HOME). Raises MachineError if there is no cache."""
    with suppress(RuntimeError):  # neither HOME nor an entry in the table of users
        return platformdirs.user_cache_path("diffsep-jax", appauthor=False) / name
    raise MachineError("no folder for caches, as there is no HOME; set XDG_CACHE_HOME to one")


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents. Raises UserError if that fails, or for a URL."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(folder)):  # a Path has one slash of gs://
        raise UserError(f"{folder}: is a URL; expected a local path. Copy the data there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {_reason(error)}") from None


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """`make_folder`; if the block raises, folders that were created and are empty are removed."""
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        make_folder(folder)
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path; the file written there becomes `path` when the block ends.

    It is flushed to the disk before it is renamed. If the block raises, the temporary file and the
    folders created for it are removed, and an earlier `path` stays. Temporary files of `path` that
    killed processes left are removed first.

    Raises:
      UserError: `path` is a folder or cannot be written; also for an OSError in the block.
    """
    temporary = path.with_name(f"{_hidden(path)}.{os.getpid()}.tmp")
    with new_folder(path.parent), write_errors(path):
        if path.is_dir():  # os.replace would fail only after the work is done
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _remove_leftovers(path)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {_reason(error)}") from None


def _hidden(path: Path) -> str:
    """The prefix of temporary names for `path`; shorter if that is near the longest allowed."""
    name = os.fsencode(path.name)
    return f".{path.name}" if len(name) < 200 else f".{zlib.crc32(name):08x}"


def _remove_leftovers(path: Path) -> None:
    leftover = re.compile(re.escape(f"{_hidden(path)}.") + r"(\d+)\.tmp")
    for file in os.listdir(path.parent):
        found = leftover.fullmatch(file)
        if found and not _is_running(int(found[1])):
            (path.parent / file).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether this is another live process, which may be writing the same file."""
    if process == os.getpid() or os.name != "posix":  # elsewhere signal 0 is not harmless
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    """Flushes a file to disk: otherwise a power cut could leave the new name on an empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
