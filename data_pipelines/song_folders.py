"""Data sets as folders of songs, as `build sung`, `build music` and `build devset` write them."""

import io
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Int16

from data_pipelines.dsp import Stereo
from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable
from diffsep_jax.lock import LOCK_FILE


def check_output(out: Path, mark: str) -> None:
    """Raises UserError unless songs can go to `out`: a new folder, or one with the file `mark`."""
    check_writable(out)
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if names - {LOCK_FILE} and mark not in names:
        raise UserError(f"{out}: holds something else; expected a new folder, or one with {mark}")


def wav_of_16_bits(audio: Stereo | Int16[np.ndarray, "time 2"], sample_rate: int) -> bytes:
    """A wav file."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
