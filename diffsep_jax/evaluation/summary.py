"""Many tracks in a few numbers: means, medians, confidence intervals, the spread of repeats.

Intervals are percentile bootstraps over tracks (Efron & Tibshirani 1993). The tracks are resampled
with replacement many times; the interval holds the middle 95% of the statistics of the resamples.
It says how much a number depends on which songs were chosen, and nothing about songs of other
kinds.
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

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistic:
    """A metric over the tracks where it is defined; everything is None if there are none.

    Attributes:
        tracks: number of these tracks.
        mean: over tracks and repeats.
        median: over tracks, then the mean over repeats.
        median_interval: its 95% confidence interval by bootstrap over tracks.
        spread: standard deviation of the repeats' medians; None for a single repeat.
        deviation: median distance from the metric's best value, then the mean over repeats; None
            for metrics without a best value.
    """

    tracks: int = 0
    mean: float | None = None
    median: float | None = None
    median_interval: Interval | None = None
    spread: float | None = None
    deviation: float | None = None


Summary = dict[tuple[str, str, str], Statistic]
"""By part ("" for all tracks), condition and metric."""


def bootstrap_interval(
    values: Float[np.ndarray, "track repeat"], reduce: Callable[..., np.ndarray]
) -> Interval | None:
    """The 95% confidence interval of the mean over repeats of `reduce` over tracks.

    `reduce` is np.mean or np.median. None for fewer than two tracks.
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
        median=float(medians.mean()),
        median_interval=bootstrap_interval(rows, np.median),
        spread=float(medians.std(ddof=1)) if len(medians) > 1 else None,
        deviation=None if best is None else float(np.median(np.abs(rows - best), axis=0).mean()),
    )


def summarise(result: Result) -> Summary:
    """Every statistic of a result."""
    summary: Summary = {}
    for metric in result.protocols:
        for condition, values in values_by_condition(result, metric).items():
            for part, tracks in result.parts.items():
                of_part = [values[track] for track in tracks if track in values]
                summary[part, condition, metric] = statistic(of_part, METRICS[metric].best)
    return summary


def values_by_condition(
    result: Result, metric: str
) -> dict[str, dict[str, Float[np.ndarray, "repeat"]]]:
    """The metric by condition and track; anchors come first.

    To compare like with like, anchors have only the tracks on which some other condition has the
    metric, unless there are none.
    """
    values = {name: result.values(name, metric) for name in (*ANCHORS, *result.conditions)}
    scored = set().union(*(values[name] for name in result.conditions))
    for name in ANCHORS if scored else ():
        values[name] = {track: each for track, each in values[name].items() if track in scored}
    return values


def tracks_differ(result: Result) -> bool:
    """Whether two conditions or anchors have the same metric on different tracks."""
    for metric in result.protocols:
        tracks = map(frozenset, values_by_condition(result, metric).values())
        if len(set(tracks) - {frozenset()}) > 1:
            return True
    return False


def ranked(result: Result, summary: Summary) -> list[str]:
    """The conditions without the anchors, the one with the highest median first."""

    def median(name: str) -> float:
        found = summary["", name, LEAD].median
        return float("-inf") if found is None else found

    return sorted(result.conditions, key=median, reverse=True)


def over_gain(result: Result, condition: str, part: str = "") -> tuple[Statistic, int]:
    """By how much utterance SDR exceeds that of the track's best constant gain.

    Returns the statistic of the differences, and the number of tracks where their mean over repeats
    is above 0.
    """
    values, floors = (result.values(name, LEAD) for name in (condition, GAIN))
    tracks = [track for track in result.parts[part] if track in values and track in floors]
    differences = [values[track] - floors[track] for track in tracks]
    return statistic(differences), sum(bool(each.mean() > 0) for each in differences)


def real_time_factor(result: Result, condition: str) -> float | None:
    """Seconds of separating per second of audio; None if nothing was separated."""
    times = [
        (row["seconds"], row["audio_seconds"])
        for row in result.rows
        if row["condition"] == condition and row["seconds"] is not None
    ]
    if not times:
        return None
    seconds, audio_seconds = np.sum(times, axis=0)
    return float(seconds / audio_seconds)
