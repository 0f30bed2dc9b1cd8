"""Output folders and files: checked before the work, written whole or not at all."""

import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from diffsep_jax.errors import UserError


def check_writable(folder: pathlib.Path) -> None:
    """UserError unless `folder`, or what is there of its path, takes a file. Leaves nothing."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written: {_reason(error)}; choose another folder"
        ) from None


def make_folder(folder: pathlib.Path) -> None:
    """Makes a folder and what is missing of its path. UserError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {_reason(error)}") from None


@contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[None]:
    """`make_folder`; if the block raises, the folders that were made and are empty go again."""
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        make_folder(folder)
        yield
    except BaseException:
        for path in missing:  # the deepest first
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name beside `path`; what is written there becomes `path` when the block ends.

    The folder is made if it is missing. Else as `replacing_together`, but OSError in the block
    becomes a UserError naming `path` too.
    """
    make_folder(path.parent)
    with replacing_together([path]) as [temporary], write_errors(path):
        yield temporary


@contextmanager
def replacing_together(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """A temporary name beside each of `paths`; all become `paths` when the block ends, or none.

    The block makes every one of the files, which are on the disk before they take their names. If
    it raises, or if a file cannot take its name, the temporary ones are removed and the earlier
    files stay. What killed processes left half-written of these paths is removed at the start.

    Raises:
      UserError: a path is a folder, is there twice, or cannot be replaced. Errors of the block are
        its own.
    """
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]}: would be written twice, expected a name for each result")
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        for path in paths:
            with write_errors(path):
                if path.is_dir():  # found before the work, and not when it is done
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                _remove_leftovers(path)
        yield temporaries
        _rename(temporaries, paths)
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _remove_leftovers(path: pathlib.Path) -> None:
    leftover = re.compile(re.escape(f".{path.name}.") + r"(\d+)(\.old)?\.tmp")
    for file in os.listdir(path.parent):
        found = leftover.fullmatch(file)
        if found and not _is_running(int(found[1])):
            (path.parent / file).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether this is another process of this machine, which may be writing the same files."""
    if process == os.getpid() or os.name != "posix":  # elsewhere signal 0 is not harmless
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _rename(temporaries: Sequence[pathlib.Path], paths: Sequence[pathlib.Path]) -> None:
    """Renames all, or puts back what was there. A second link keeps an earlier file meanwhile."""
    was_there = [path.exists() for path in paths]
    kept = [temporary.with_suffix(".old.tmp") for temporary in temporaries]
    whole = [temporary.exists() for temporary in temporaries]
    try:
        for temporary, path, old in zip(temporaries, paths, kept, strict=True):
            with write_errors(path):
                _sync(temporary)
                if path.exists():
                    with suppress(OSError):  # a file system without links: it is replaced for good
                        os.link(path, old)
                os.replace(temporary, path)
    except BaseException:
        for temporary, path, old, existed, was_whole in zip(
            temporaries, paths, kept, was_there, whole, strict=True
        ):
            if was_whole and not temporary.exists():  # it was renamed
                if old.exists():
                    os.replace(old, path)
                elif not existed:
                    path.unlink(missing_ok=True)
        raise
    finally:
        for old in kept:
            old.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    """Waits until the disk has the file: its name may outlive a power cut, its content not."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def write_errors(path: pathlib.Path) -> Iterator[None]:
    """OSError in the block becomes a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {_reason(error)}") from None


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_folder(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder of files, whole or not at all. UserError if that cannot be.

    What a killed process left half-written of it is removed first.
    """
    part = folder.with_name(f".{folder.name}.tmp")
    with write_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for name, data in files.items():
                (part / name).write_bytes(data)
                _sync(part / name)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
