"""A few seconds of each track to listen to, where the singing is loudest."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
import soundfile
from jaxtyping import Float32

from diffsep_jax.evaluation.result_files import estimate_file, excerpt_file
from diffsep_jax.evaluation.results import Excerpt
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.files import replacing

Waveform = Float32[np.ndarray, "time channel"]

SECONDS = 6.0

MOST_CONDITIONS = 8
"""Of more, the first alone is kept: an estimate takes some 0.5 MB of each track."""

_STEP_SECONDS = 0.1


def loudest_part(song: Song) -> slice:
    """The samples of its excerpt."""
    length = min(len(song.vocals), round(SECONDS * song.sample_rate))
    start = _loudest(song.vocals, length, max(1, round(_STEP_SECONDS * song.sample_rate)))
    return slice(start, start + length)


def keep_excerpt(out: pathlib.Path, song: Song, estimates: Mapping[str, Waveform]) -> Excerpt:
    """Writes the excerpt's files as 16-bit FLAC, with one gain for all.

    `estimates` are `loudest_part` of estimated vocals by their conditions. Raises UserError if the
    files cannot be written.
    """
    part = loudest_part(song)
    excerpt = Excerpt(
        start_seconds=part.start / song.sample_rate,
        seconds=(part.stop - part.start) / song.sample_rate,
        gain=1.0,
        conditions=tuple(estimates),
    )
    files = {
        excerpt_file(out, song.name, "mixture"): song.mixture[part],
        excerpt_file(out, song.name, "vocals"): song.vocals[part],
    } | {
        estimate_file(out, song.name, excerpt, condition): audio
        for condition, audio in estimates.items()
    }
    gain = 1 / max(1.0, *(float(np.abs(audio).max()) for audio in files.values()))
    for path, audio in files.items():
        samples = audio * np.float32(gain)
        with replacing(path) as temporary:
            soundfile.write(temporary, samples, song.sample_rate, format="FLAC", subtype="PCM_16")
    return dataclasses.replace(excerpt, gain=gain)


def _loudest(audio: Waveform, length: int, step: int) -> int:
    """Where a window of `length` samples has the most energy, to a multiple of `step`."""
    energy = np.cumsum(np.square(audio, dtype=np.float64).sum(axis=1))
    energy = np.concatenate([[0.0], energy])
    starts = np.arange(0, len(audio) - length + 1, step)
    return int(starts[np.argmax(energy[starts + length] - energy[starts])])
