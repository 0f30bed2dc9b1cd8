"""Output folders and files: checked before the work, written whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Iterator
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
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
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

    The folder is made if it is missing. If the block raises, `path` stays as it was and the
    temporary file is removed. OSError becomes a UserError naming `path`.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    make_folder(path.parent)
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {_reason(error)}") from None


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
