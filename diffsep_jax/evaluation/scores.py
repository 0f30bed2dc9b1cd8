"""Utterance SDR of tracks: of the estimate, and of the mixture taken as the estimate."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from rich.table import Table
from rich.text import Text

from diffsep_jax import metrics
from diffsep_jax.errors import UserError
from diffsep_jax.output import write_bytes

PROTOCOL = (
    "utterance SDR (Sound Demixing Challenge 2023): 10 log10((sum s^2 + 1e-7) /"
    " (sum (s - s_hat)^2 + 1e-7)) over the whole track and both channels; median over tracks"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackScore:
    """One track's utterance SDR in dB.

    Attributes:
        name: of the track.
        sdr: of the estimated vocals; None where the true vocals are silent.
        sdr_mixture: of the mixture taken as the estimate; None likewise.
        audio_seconds: length of the track.
        seconds: time that the separation took, without compiling.
    """

    name: str
    sdr: float | None
    sdr_mixture: float | None
    audio_seconds: float
    seconds: float

    @property
    def is_silent(self) -> bool:
        """Whether the true vocals are silent, so that no SDR is defined."""
        return self.sdr is None


def score_track(
    name: str,
    *,
    vocals: Float32[np.ndarray, "time channel"],
    mixture: Float32[np.ndarray, "time channel"],
    estimate: Float32[np.ndarray, "time channel"],
    sample_rate: int,
    seconds: float,
) -> TrackScore:
    """Scores one track. Raises UserError, naming the track, if shapes differ or a value is NaN."""
    silent = metrics.is_silent(vocals)
    try:
        sdr, sdr_mixture = (metrics.sdr(vocals, other) for other in (estimate, mixture))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return TrackScore(
        name=name,
        sdr=None if silent else sdr,
        sdr_mixture=None if silent else sdr_mixture,
        audio_seconds=len(vocals) / sample_rate,
        seconds=seconds,
    )


def summarise(scores: Sequence[TrackScore]) -> dict[str, float | int | None]:
    """Medians over the tracks with vocals, the number of silent ones, and the real-time factor."""
    scored = [s for s in scores if not s.is_silent]

    def median(field: str) -> float | None:
        return float(np.median([getattr(s, field) for s in scored])) if scored else None

    audio_seconds = sum(s.audio_seconds for s in scores)
    return {
        "tracks": len(scores),
        "silent_tracks": len(scores) - len(scored),
        "median_sdr": median("sdr"),
        "median_sdr_mixture": median("sdr_mixture"),
        "audio_seconds": audio_seconds,
        "real_time_factor": sum(s.seconds for s in scores) / audio_seconds,
    }


def write_metrics(
    path: pathlib.Path, scores: Sequence[TrackScore], settings: Mapping[str, Any]
) -> None:
    """Writes the protocol, the settings, the summary and every track as JSON.

    Raises UserError if the file cannot be written.
    """
    report = {
        "protocol": PROTOCOL,
        "settings": dict(settings),
        "summary": summarise(scores),
        "tracks": [dataclasses.asdict(score) for score in scores],
    }
    write_bytes(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


def table(scores: Sequence[TrackScore]) -> Table:
    """The tracks and their median, for a terminal."""
    result = Table(
        title="utterance SDR of the vocals, dB",
        caption="mixture: the mixture taken as the estimate; median over tracks with vocals",
    )
    result.add_column("track")
    for column in ("mixture", "estimate", "gain", "seconds"):
        result.add_column(column, justify="right")
    for score in scores:
        decibels = _row(score.sdr_mixture, score.sdr)
        # As Text: brackets in a song's name are no markup.
        result.add_row(Text(score.name), *decibels, f"{score.seconds:.1f}")
    summary = summarise(scores)
    result.add_section()
    result.add_row("median", *_row(summary["median_sdr_mixture"], summary["median_sdr"]), "")
    return result


def _row(mixture: float | None, estimate: float | None) -> list[str]:
    if mixture is None or estimate is None:
        return ["silent", "silent", ""]
    return [f"{mixture:.2f}", f"{estimate:.2f}", f"{estimate - mixture:+.2f}"]
