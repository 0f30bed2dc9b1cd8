"""Many tracks in a few numbers: means, medians, confidence intervals, the spread of repeats.

Intervals are percentile bootstraps over tracks (Efron & Tibshirani 1993): tracks are drawn anew,
with replacement, as many as there are, and the middle 95% of the resulting statistics is kept. They
say how much a number depends on which songs were chosen, and nothing about songs of other kinds.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import scipy.stats
from jaxtyping import Float

from diffsep_jax.evaluation.protocols import ANCHORS, GAIN, METRICS
from diffsep_jax.evaluation.scores import Result

LEAD = "utterance_sdr"
"""The metric by which conditions and tracks are ranked."""

RESAMPLES = 10_000
CONFIDENCE = 0.95

Reduce = Callable[..., np.ndarray]
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistic:
    """A metric over the tracks where it is defined; all None where there are none.

    Attributes:
        tracks: how many those are.
        mean: over tracks, then over repeats.
        mean_interval: its 95% confidence interval by bootstrap over tracks.
        median: over tracks, then the mean over repeats.
        median_interval: likewise.
        spread: standard deviation of the repeats' medians; None where there is one repeat.
        deviation: median distance from the metric's best value, taken as `median` is; None for
            metrics without one.
    """

    tracks: int = 0
    mean: float | None = None
    mean_interval: Interval | None = None
    median: float | None = None
    median_interval: Interval | None = None
    spread: float | None = None
    deviation: float | None = None


Summary = dict[tuple[str, str, str], Statistic]
"""By part ("" is all tracks), condition and metric."""


def bootstrap_interval(
    values: Float[np.ndarray, "track repeat"], reduce: Reduce
) -> Interval | None:
    """The 95% confidence interval of the mean over repeats of `reduce` over tracks.

    `reduce` is np.mean or np.median. None for less than two tracks, of which nothing can be said.
    """
    if len(values) < 2:
        return None

    def mean_over_repeats(*repeats: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([reduce(repeat, axis=axis) for repeat in repeats], axis=0)

    interval = scipy.stats.bootstrap(
        tuple(values.T),
        mean_over_repeats,
        paired=True,  # a track is drawn with all of its repeats
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // values.size),  # bounds the memory
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def statistic(
    values: Iterable[Float[np.ndarray, "repeat"]], best: float | None = None
) -> Statistic:
    """The statistic of each track's repeats; `best` is the metric's best value, if it has one."""
    rows = np.array(list(values))
    if not len(rows):
        return Statistic()
    medians = np.median(rows, axis=0)
    return Statistic(
        tracks=len(rows),
        mean=float(rows.mean()),
        mean_interval=bootstrap_interval(rows, np.mean),
        median=float(medians.mean()),
        median_interval=bootstrap_interval(rows, np.median),
        spread=float(medians.std(ddof=1)) if len(medians) > 1 else None,
        deviation=None if best is None else float(np.median(np.abs(rows - best), axis=0).mean()),
    )


def summarise(result: Result) -> Summary:
    """Every statistic of a result. Those of anchors are over `comparable_tracks`."""
    summary: Summary = {}
    for metric in result.protocols:
        comparable = comparable_tracks(result, metric)
        for condition in (*ANCHORS, *result.conditions):
            values = result.values(condition, metric)
            for part, tracks in result.parts.items():
                summary[part, condition, metric] = statistic(
                    [
                        values[track]
                        for track in tracks
                        if track in values and (condition not in ANCHORS or track in comparable)
                    ],
                    METRICS[metric].best,
                )
    return summary


def comparable_tracks(result: Result, metric: str) -> set[str]:
    """The tracks on which some condition has the metric; all, where none has it on any.

    Anchors are summed up over these, so that like stands beside like.
    """
    scored = [result.values(condition, metric).keys() for condition in result.conditions]
    return set().union(*scored) or set(result.tracks)


def rows_are_of_other_tracks(result: Result) -> bool:
    """Whether some conditions and anchors of one metric have it on different tracks.

    Conditions without a number count for nothing.
    """
    for metric in result.protocols:
        comparable = comparable_tracks(result, metric)
        rows = [set(result.values(name, metric)) for name in result.conditions]
        rows += [set(result.values(name, metric)) & comparable for name in ANCHORS]
        if len({frozenset(tracks) for tracks in rows if tracks}) > 1:
            return True
    return False


def ranked(result: Result, summary: Summary) -> list[str]:
    """The conditions without the anchors, that with the highest median first."""

    def median(name: str) -> float:
        found = summary["", name, LEAD].median
        return float("-inf") if found is None else found

    return sorted(result.conditions, key=median, reverse=True)


def over_gain(result: Result, condition: str, part: str = "") -> tuple[Statistic, int]:
    """The utterance SDR less that of the track's best constant gain, and on how many tracks, in the
    mean over repeats, that is above 0."""
    values, floors = (result.values(name, LEAD) for name in (condition, GAIN))
    tracks = [track for track in result.parts[part] if track in values and track in floors]
    differences = [values[track] - floors[track] for track in tracks]
    return statistic(differences), sum(bool(each.mean() > 0) for each in differences)


def real_time_factor(result: Result, condition: str) -> float | None:
    """Seconds of separating for a second of audio; None where nothing was separated."""
    times = [
        (row["seconds"], row["audio_seconds"])
        for row in result.rows
        if row["condition"] == condition and row["seconds"] is not None
    ]
    if not times:
        return None
    seconds, audio_seconds = np.sum(times, axis=0)
    return float(seconds / audio_seconds)
