"""Output folders and files: checked before the work, written whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name beside `path`; what is written there becomes `path` when the block ends.

    The folder is made if it is missing. If the block raises, `path` stays as it was and the
    temporary file is removed. OSError becomes a UserError naming `path`.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
