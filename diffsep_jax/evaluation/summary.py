"""Many tracks in a few numbers: means, medians, confidence intervals, the spread of repeats.

Intervals are percentile bootstraps over tracks (Efron & Tibshirani 1993): tracks are drawn anew,
with replacement, as many as there are, and the middle 95% of the resulting statistics is kept. They
say how much the number hangs on which songs were chosen, and nothing of songs of other kinds.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float

from diffsep_jax.evaluation.protocols import METRICS, REFERENCES
from diffsep_jax.evaluation.results import (
    Condition,
    ConditionSummary,
    Result,
    Score,
    Statistic,
    Summary,
    Track,
)

RESAMPLES = 10_000
CONFIDENCE = 0.95

Reduce = Callable[..., np.ndarray]


def bootstrap_interval(
    values: Float[np.ndarray, "track repeat"], reduce: Reduce
) -> tuple[float, float] | None:
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


def statistic(values: Float[np.ndarray, "track repeat"], best: float | None = None) -> Statistic:
    """What is said of a metric's values, all finite; `best` is the metric's best one, if it has."""
    num_tracks, num_repeats = values.shape
    if num_tracks == 0:
        return Statistic(
            tracks=0,
            mean=None,
            mean_interval=None,
            median=None,
            median_interval=None,
            repeat_medians=(),
            spread=None,
        )
    medians = np.median(values, axis=0)
    return Statistic(
        tracks=num_tracks,
        mean=float(values.mean()),
        mean_interval=bootstrap_interval(values, np.mean),
        median=float(medians.mean()),
        median_interval=bootstrap_interval(values, np.median),
        repeat_medians=tuple(medians.tolist()),
        spread=float(medians.std(ddof=1)) if num_repeats > 1 else None,
        deviation=None if best is None else float(np.median(np.abs(values - best), axis=0).mean()),
    )


def values_of(scores: Iterable[Sequence[Score]], metric: str) -> Float[np.ndarray, "track repeat"]:
    """The metric of the tracks that have it in every repeat; there may be none of them."""
    rows = [[each.metrics.get(metric) for each in repeats] for repeats in scores if repeats]
    complete = [row for row in rows if None not in row]
    return np.array(complete, np.float64).reshape(len(complete), len(rows[0]) if rows else 1)


def summarise(
    tracks: Sequence[Track], conditions: Sequence[Condition], metrics: Sequence[str]
) -> Summary:
    """The summary of a result."""
    return Summary(
        tracks=len(tracks),
        silent_tracks=sum(track.silent for track in tracks),
        audio_seconds=sum(track.audio_seconds for track in tracks),
        problems=dict(
            sorted(Counter(problem.kind for track in tracks for problem in track.problems).items())
        ),
        references={
            name: {
                metric: _statistic(
                    [
                        (track.references[name],)
                        for track in comparable_tracks(tracks, conditions, metric)
                        if name in track.references
                    ],
                    metric,
                )
                for metric in metrics
            }
            for name in REFERENCES
        },
        conditions={
            condition.name: _condition_summary(tracks, condition.name, metrics)
            for condition in conditions
        },
        parts={
            part: summarise(
                [dataclasses.replace(track, part=None) for track in tracks if track.part == part],
                conditions,
                metrics,
            )
            for part in sorted({track.part for track in tracks if track.part is not None})
        },
    )


def comparable_tracks(
    tracks: Sequence[Track], conditions: Sequence[Condition], metric: str
) -> list[Track]:
    """The tracks that the references' statistics speak of, so that like stands beside like.

    Those on which some condition has the metric; all, where none has it on any.
    """
    scored = [
        track
        for track in tracks
        if any(has_metric(track.estimates.get(each.name, ()), metric) for each in conditions)
    ]
    return scored or list(tracks)


def has_metric(scores: Sequence[Score], metric: str) -> bool:
    """Whether every repeat has it, and there is one."""
    return len(values_of([scores], metric)) > 0


def speak_of_other_tracks(result: Result) -> bool:
    """Whether some rows of one metric, of conditions and references, are of different tracks.

    Rows without a number count for nothing.
    """
    for metric in result.protocols:
        rows = {tuple(has_metric(row, metric) for row in rows) for rows in _rows(result, metric)}
        if len([row for row in rows if any(row)]) > 1:
            return True
    return False


def _rows(result: Result, metric: str) -> Iterator[list[Sequence[Score]]]:
    """The scores behind each row of a metric, by track."""
    for condition in result.conditions:
        yield [track.estimates.get(condition.name, ()) for track in result.tracks]
    comparable = {
        track.name for track in comparable_tracks(result.tracks, result.conditions, metric)
    }
    for name in REFERENCES:
        yield [
            (track.references[name],)
            if track.name in comparable and name in track.references
            else ()
            for track in result.tracks
        ]


def _condition_summary(
    tracks: Sequence[Track], name: str, metrics: Sequence[str]
) -> ConditionSummary:
    estimated = [(track, track.estimates[name]) for track in tracks if track.estimates.get(name)]
    times = [
        (score.seconds, track.audio_seconds)
        for track, scores in estimated
        for score in scores
        if score.seconds is not None
    ]
    work, audio = np.sum(times, axis=0) if times else (0.0, 0.0)
    over_gain = np.concatenate(
        [
            values_of([scores], "utterance_sdr") - values_of([(floor,)], "utterance_sdr")
            for track, scores in estimated
            if (floor := track.references.get("gain"))
        ]
        or [np.zeros((0, 1))]
    )
    return ConditionSummary(
        statistics={
            metric: _statistic([scores for _, scores in estimated], metric) for metric in metrics
        },
        over_gain=statistic(over_gain),
        better_than_gain=int(np.sum(over_gain.mean(axis=1) > 0)),
        real_time_factor=float(work / audio) if audio else None,
    )


def _statistic(scores: Iterable[Sequence[Score]], metric: str) -> Statistic:
    return statistic(values_of(scores, metric), METRICS[metric].best)
