"""What the commands of `build` share: songs, what may be in their folders, audio files."""

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Int16

from data_pipelines.dsp import Stereo
from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable, write_errors
from diffsep_jax.lock import LOCK_FILE


class Song(NamedTuple):
    """Two stems, and what is known of them: sources and the choices that were made."""

    vocals: Stereo
    accompaniment: Stereo
    facts: dict[str, Any]


def check_output(out: Path, mark: str) -> None:
    """Raises UserError unless songs can go to `out`: a new folder, or one with the file `mark`."""
    check_writable(out)
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if names - {LOCK_FILE} and mark not in names:
        raise UserError(f"{out}: holds something else; expected a new folder, or one with {mark}")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder of files, whole or not at all. Raises UserError if that fails.

    A partial folder that a killed process left is removed first.
    """
    part = folder.with_name(f".{folder.name}.tmp")
    with write_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for name, data in files.items():
                with (part / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # before the folder gets its name
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def check_same(path: Path, wanted: Mapping[str, Any]) -> None:
    """Raises UserError unless the data set with this JSON file of settings has the wanted ones."""
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{path}: cannot be read; delete {path.parent} to build it again, or choose another"
            " --out"
        ) from None
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise UserError(
                f"{path.parent}: {name} is {stored.get(name, 'unknown')}; expected {value}: use the"
                " same settings, delete the folder, or choose another --out"
            )


def wav_of_16_bits(audio: Stereo | Int16[np.ndarray, "time 2"], sample_rate: int) -> bytes:
    """A wav file."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
