"""Several estimates of the same songs' vocals, compared in one table."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from rich.table import Table
from rich.text import Text

from diffsep_jax.evaluation.scores import TrackScore, score_track, summarise
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings

Waveform = Float32[np.ndarray, "time channel"]


class Song(NamedTuple):
    """A mixture whose vocals are known; the rate in Hz."""

    name: str
    vocals: Waveform
    mixture: Waveform
    sample_rate: int


class Scored(NamedTuple):
    """An estimate of a song's vocals, and its score; the score's seconds include every draw."""

    vocals: Waveform
    score: TrackScore


class Row(NamedTuple):
    """A line of the table: how one estimate scored on some songs."""

    songs: str
    estimate: str
    tracks: Sequence[TrackScore]


def score_estimates(
    separator: Separator, song: Song, estimates: Mapping[str, Sequence[SamplerSettings]]
) -> dict[str, Scored]:
    """Separates a song by each of the named estimates: the mean of the draws that it lists.

    Raises UserError as `Separator.separate` and `score_track` do.
    """
    scored = {}
    for name, draws in estimates.items():
        start = time.perf_counter()
        separations = [
            separator.separate(song.mixture, song.sample_rate, **dataclasses.asdict(settings))
            for settings in draws
        ]
        vocals = np.mean([separation.vocals for separation in separations], axis=0)
        seconds = time.perf_counter() - start
        score = score_track(
            song.name,
            vocals=song.vocals,
            mixture=song.mixture,
            estimate=vocals,
            sample_rate=song.sample_rate,
            seconds=seconds,
        )
        scored[name] = Scored(vocals, score)
    return scored


def comparison_table(rows: Sequence[Row]) -> Table:
    """The rows, each with its median over the tracks with vocals, for a terminal."""
    table = Table(
        title="utterance SDR of the vocals, dB",
        caption="mixture: taken as the estimate; silence would score 0 dB\n"
        "RTF: real-time factor, seconds of work per second of song",
    )
    table.add_column("songs")
    table.add_column("estimate")
    for column in ("mixture", "output", "gain", "seconds", "RTF"):
        table.add_column(column, justify="right")
    for previous, row in zip((None, *rows), rows, strict=False):
        is_new = previous is None or previous.songs != row.songs
        if is_new:
            table.add_section()
        summary = summarise(row.tracks)
        mixture, output = summary["median_sdr_mixture"], summary["median_sdr"]
        if mixture is None or output is None:
            decibels = ["silent", "silent", ""]
        else:
            decibels = [f"{mixture:.2f}", f"{output:.2f}", f"{output - mixture:+.2f}"]
        seconds = sum(track.seconds for track in row.tracks)
        factor = f"{summary['real_time_factor']:.2f}"
        # As Text: brackets in a name are no markup.
        names = Text(row.songs if is_new else ""), Text(row.estimate)
        table.add_row(*names, *decibels, f"{seconds:.1f}", factor)
    return table
