"""A few seconds of each track to listen to, where the singing is loudest."""

import pathlib

import numpy as np
import soundfile
from jaxtyping import Float32

from diffsep_jax.evaluation.result_files import excerpt_file
from diffsep_jax.evaluation.results import Excerpt
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.output import replacing

SECONDS = 6.0

_STEP_SECONDS = 0.1


def keep_excerpt(
    out: pathlib.Path, song: Song, estimate: Float32[np.ndarray, "time channel"], condition: str
) -> Excerpt:
    """Writes the excerpt's files as 16-bit FLAC. UserError if they cannot be written."""
    length = min(len(song.vocals), round(SECONDS * song.sample_rate))
    start = _loudest(song.vocals, length, max(1, round(_STEP_SECONDS * song.sample_rate)))
    part = slice(start, start + length)
    stems = {"mixture": song.mixture[part], "vocals": song.vocals[part], "estimate": estimate[part]}
    peak = max(float(np.abs(audio).max()) for audio in stems.values())
    gain = 1 / max(1.0, peak)
    for stem, audio in stems.items():
        samples = audio * np.float32(gain)
        with replacing(excerpt_file(out, song.name, stem)) as temporary:
            soundfile.write(temporary, samples, song.sample_rate, format="FLAC", subtype="PCM_16")
    return Excerpt(
        start_seconds=start / song.sample_rate,
        seconds=length / song.sample_rate,
        gain=gain,
        condition=condition,
    )


def _loudest(audio: Float32[np.ndarray, "time channel"], length: int, step: int) -> int:
    """Where a window of `length` samples has the most energy, to a multiple of `step`."""
    energy = np.cumsum(np.square(audio, dtype=np.float64).sum(axis=1))
    energy = np.concatenate([[0.0], energy])
    starts = np.arange(0, len(audio) - length + 1, step)
    return int(starts[np.argmax(energy[starts + length] - energy[starts])])
