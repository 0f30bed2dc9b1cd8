"""The disk cache of songs: whole files or none, memory-mapped, safe among threads and processes."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffsep_jax.errors import MachineError
from diffsep_jax.files import user_cache


def cache_folder(cache_dir: str | None) -> Path:
    """The given folder, or diffsep-jax/songs in the user's cache. Raises MachineError."""
    if cache_dir is not None:
        return Path(cache_dir)
    return user_cache("songs")


def cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a cache file, memory-mapped; made first where it is missing or damaged."""
    # A folder that cannot be read fails below, in writing.
    with contextlib.suppress(OSError, ValueError):
        return np.lib.format.open_memmap(path, mode="r")
    write_npy(path, make())
    return np.lib.format.open_memmap(path, mode="r")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes an array under a temporary name, then renames it. Raises MachineError on failure.

    Others may read it, as far as the umask lets them: several users may share a cache.
    """
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                np.save(file, array)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"{path.parent}: the song cache cannot be written: {error.strerror or error}; "
            "choose another cache_dir or set XDG_CACHE_HOME"
        ) from error
