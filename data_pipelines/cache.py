"""The disk cache of songs: whole files or none, memory-mapped, safe among threads and processes."""

import os
import tempfile
from pathlib import Path

import numpy as np
import platformdirs

from diffsep_jax.errors import UserError


def cache_folder(cache_dir: str | None) -> Path:
    """The given folder, or diffsep-jax/songs in the user's cache folder ($XDG_CACHE_HOME)."""
    if cache_dir is not None:
        return Path(cache_dir)
    return platformdirs.user_cache_path("diffsep-jax", appauthor=False) / "songs"


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array under a temporary name, then rename. Raises `UserError` naming the folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                np.save(file, array)
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UserError(
            f"{path.parent}: the song cache cannot be written: {error.strerror or error}; "
            "choose another cache_dir or set XDG_CACHE_HOME"
        ) from error
