"""Several estimates of the same songs' vocals, by a model, compared in one table."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from rich.table import Table
from rich.text import Text

from diffsep_jax.evaluation.results import Score
from diffsep_jax.evaluation.scoring import Song, score, score_references
from diffsep_jax.evaluation.summary import statistic, values_of
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings

METRIC = "utterance_sdr"


class Scored(NamedTuple):
    """An estimate of a song's vocals, and the scores of it and of the mixture taken as one.

    The score's seconds include every draw.
    """

    vocals: Float32[np.ndarray, "time channel"]
    score: Score
    mixture: Score
    audio_seconds: float

    @property
    def sdr(self) -> float | None:
        """Utterance SDR in dB; None where the true vocals are silent."""
        return self.score.metrics[METRIC]


class Row(NamedTuple):
    """A line of the table: how one estimate scored on some songs."""

    songs: str
    estimate: str
    tracks: Sequence[Scored]


def score_estimates(
    separator: Separator, song: Song, estimates: Mapping[str, Sequence[SamplerSettings]]
) -> dict[str, Scored]:
    """Separates a song by each of the named estimates: the mean of the draws that it lists.

    Raises UserError as `Separator.separate` does.
    """
    mixture = song.mixture
    floor = score_references(song, (METRIC,), ("mixture",))["mixture"]
    scored = {}
    for name, draws in estimates.items():
        start = time.perf_counter()
        separations = [
            separator.separate(mixture, song.sample_rate, settings=settings) for settings in draws
        ]
        vocals = np.mean([separation.vocals for separation in separations], axis=0)
        seconds = time.perf_counter() - start
        measured = score(song, vocals, mixture - vocals, (METRIC,))
        timed = dataclasses.replace(measured, seconds=seconds)
        scored[name] = Scored(vocals, timed, floor, song.seconds)
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
        mixture = statistic(values_of([(each.mixture,) for each in row.tracks], METRIC)).median
        output = statistic(values_of([(each.score,) for each in row.tracks], METRIC)).median
        if mixture is None or output is None:
            decibels = ["silent", "silent", ""]
        else:
            decibels = [f"{mixture:.2f}", f"{output:.2f}", f"{output - mixture:+.2f}"]
        seconds = sum(each.score.seconds or 0.0 for each in row.tracks)
        factor = f"{seconds / sum(each.audio_seconds for each in row.tracks):.2f}"
        # As Text: brackets in a name are no markup.
        names = Text(row.songs if is_new else ""), Text(row.estimate)
        table.add_row(*names, *decibels, f"{seconds:.1f}", factor)
    return table
