"""An estimate's audio, brought to the song's rate, or the problem that keeps it from being scored.

Nothing is mended in silence: an estimate of other channels or of another length is not scored, one
of another rate is resampled and told.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import AudioFile, resample_blocks
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.results import Problem, ProblemKind
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.metrics import is_silent

Waveform = Float32[np.ndarray, "time channel"]


class EstimateError(Exception):
    """An estimate that cannot be scored, and why."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind: ProblemKind = kind


def read_estimate(path: Path, song: Song) -> tuple[Waveform, list[Problem]]:
    """The audio in the song's shape, and what deserves a word.

    Raises EstimateError if it cannot be read, or its channels or its length are not the song's.
    """
    try:
        source = AudioFile(path)
        blocks = list(source.blocks())
    except UserError as error:
        raise EstimateError("unreadable estimate", str(error)) from None
    if not blocks:
        raise EstimateError("unreadable estimate", f"{path}: no samples")
    audio = np.concatenate(blocks)
    num_samples, num_channels = song.vocals.shape
    if audio.shape[1] == 1 and _is_mono(song):
        audio = np.repeat(audio, num_channels, axis=1)
    if audio.shape[1] != num_channels:
        raise EstimateError(
            "channels differ",
            f"{path}: {audio.shape[1]} channels, expected {num_channels} as the reference of"
            f" {song.name}",
        )
    expected = num_samples * source.sample_rate / song.sample_rate
    # At another rate each program rounds the length in its own way.
    if abs(len(audio) - expected) > (source.sample_rate != song.sample_rate):
        raise EstimateError(
            "length differs",
            f"{path}: {len(audio)} samples ({len(audio) / source.sample_rate:.3f} s at"
            f" {source.sample_rate} Hz), expected {round(expected)} as the reference of"
            f" {song.name}",
        )
    check_finite(audio, str(path))
    if source.sample_rate == song.sample_rate:
        return audio, []
    told = Problem(
        kind="sample rate differs",
        message=f"{path}: {source.sample_rate} Hz, resampled to {song.sample_rate} Hz, at"
        " which songs are scored",
    )
    resampled = np.concatenate(list(resample_blocks([audio], source.sample_rate, song.sample_rate)))
    missing = max(0, num_samples - len(resampled))
    return np.pad(resampled, ((0, missing), (0, 0)))[:num_samples], [told]


def _is_mono(song: Song) -> bool:
    """Whether its channels are all equal, as in what sources make of a mono file."""
    return all(bool(np.all(stem == stem[:, :1])) for stem in (song.vocals, song.accompaniment))


def check_finite(audio: Waveform, name: str) -> None:
    """Raises EstimateError at a NaN or an infinity."""
    finite = np.isfinite(audio).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise EstimateError(
            "NaN in the estimate", f"{name}: NaN or infinity at sample {first}, expected none"
        )


def silence(audio: Waveform, name: str, song: Song) -> list[Problem]:
    """The problem of silent vocals where there is singing."""
    if not is_silent(audio) or is_silent(song.vocals):
        return []
    message = f"{name}: the estimate is silent, the vocals of {song.name} are not"
    return [Problem(kind="silent estimate", message=message)]
