"""Two results of the same songs, track by track: which is better, and is it more than chance.

The comparison is paired: each track's score in B less its score in A, so that easy and hard songs
do not hide what changed.
"""

import dataclasses
import itertools
import math
import warnings

import numpy as np
import scipy.stats
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.evaluation.results import Condition, Result, Score
from diffsep_jax.evaluation.summary import bootstrap_interval, values_of

SIGNIFICANCE = 0.05

# Wilcoxon's p of n differences is 2^(1 - n) at the least: 0.0625 of five.
_FEWEST_TRACKS = 6

# The same audio gives the same score of the mixture up to rounding.
_SAME_AUDIO_DB = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two results on the tracks that both have.

    Attributes:
        metric: its name.
        differences: B - A by track, means over repeats; of metrics that have a best value, of the
            distances to it.
        left_out: tracks that have no score in A or in B.
        median: of the differences.
        median_interval: its 95% confidence interval by bootstrap over tracks.
        mean: of the differences.
        p_value: of Wilcoxon's signed-rank test, two-sided: how often differences like these would
            come if neither was better. None if all are zero.
        repeat_noise: standard error of the mean that the seeds alone give; None where a result has
            one repeat of what draws noise, so that it cannot be known.
    """

    metric: str
    differences: dict[str, float]
    left_out: tuple[str, ...]
    median: float
    median_interval: tuple[float, float] | None
    mean: float
    p_value: float | None
    repeat_noise: float | None

    @property
    def better(self) -> int:
        """Tracks on which B is better."""
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        return sum(sign * difference > 0 for difference in self.differences.values())

    @property
    def worse(self) -> int:
        """Tracks on which A is better."""
        return sum(difference != 0 for difference in self.differences.values()) - self.better

    @property
    def verdict(self) -> str:
        """One line: which is better, and whether that is more than chance."""
        ends = self.median_interval
        if self.p_value is None:
            return "no difference"
        if (num_differ := self.better + self.worse) < _FEWEST_TRACKS:
            return f"too few tracks to tell: {num_differ} differ, and {_FEWEST_TRACKS} are needed"
        if ends is None or self.p_value >= SIGNIFICANCE or ends[0] <= 0 <= ends[1]:
            return "no more than these tracks' differences give by chance"
        if self.repeat_noise is None:
            return f"{self._winner} is better, by one draw; --repeats 5 tells more"
        if abs(self.mean) <= 2 * self.repeat_noise:
            return "no more than other seeds would give"
        if self.mean * self.median < 0:
            return "median and mean disagree: a few tracks differ far more than the others"
        return f"{self._winner} is better, by more than chance"

    @property
    def _winner(self) -> str:
        return "B" if (self.median > 0) == METRICS[self.metric].higher_is_better else "A"


def compare(
    a: Result, b: Result, *, condition_a: str | None = None, condition_b: str | None = None
) -> list[Comparison]:
    """Compares two results, or two conditions of one, metric by metric.

    Raises UserError if their tracks, their audio or their protocols differ, or a condition must be
    named.
    """
    _check_same(a, b)
    first, second = _condition(a, condition_a, "a"), _condition(b, condition_b, "b")
    metrics = [metric for metric in a.protocols if metric in b.protocols]
    compared = []
    for metric in metrics:
        pairs = {
            ours.name: (
                _values(ours.estimates[first.name], metric),
                _values(theirs.estimates[second.name], metric),
            )
            for ours, theirs in zip(a.tracks, b.tracks, strict=True)
        }
        scored = {name: pair for name, pair in pairs.items() if all(v.size for v in pair)}
        if scored:
            compared.append(
                _compare_metric(
                    metric,
                    scored,
                    left_out=tuple(name for name in pairs if name not in scored),
                    repeat_noise=_repeat_noise(scored, first, second),
                )
            )
    if not compared:
        raise UserError("no track has a score in both results, expected at least one")
    return compared


def _compare_metric(
    metric: str,
    pairs: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    left_out: tuple[str, ...],
    repeat_noise: float | None,
) -> Comparison:
    differences = np.array([b.mean() - a.mean() for a, b in pairs.values()])
    return Comparison(
        metric=metric,
        differences=dict(zip(pairs, differences.tolist(), strict=True)),
        left_out=left_out,
        median=float(np.median(differences)),
        median_interval=bootstrap_interval(differences[:, None], np.median),
        mean=float(differences.mean()),
        p_value=_p_value(differences),
        repeat_noise=repeat_noise,
    )


def _p_value(differences: Float[np.ndarray, "track"]) -> float | None:
    if not differences.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties and of few tracks, where it is approximate
        return float(scipy.stats.wilcoxon(differences).pvalue)


def _repeat_noise(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], first: Condition, second: Condition
) -> float | None:
    variance = 0.0
    for condition, side in zip((first, second), zip(*pairs.values(), strict=True), strict=True):
        settings = condition.settings
        no_noise = settings.get("temperature") == 0 and not settings.get("eta")
        if no_noise or settings.get("sampler", "direct") == "direct":
            continue  # nothing is drawn, as of finished files
        if any(values.size < 2 for values in side):
            return None
        variance += sum(float(values.var(ddof=1)) / values.size for values in side)
    return math.sqrt(variance) / len(pairs)


def _values(scores: tuple[Score, ...], metric: str) -> np.ndarray:
    """Of every repeat, as they are compared; none where one has none."""
    return METRICS[metric].to_compare(values_of([scores], metric).ravel())


def _condition(result: Result, name: str | None, side: str) -> Condition:
    names = [condition.name for condition in result.conditions]
    if name is None and len(names) > 1:
        raise UserError(
            f"result {side.upper()} has {len(names)} conditions; name one of them by"
            f" --condition-{side}: {', '.join(names)}"
        )
    for condition in result.conditions:
        if name in (None, condition.name):
            return condition
    raise UserError(f"--condition-{side} {name!r}: unknown, expected one of {', '.join(names)}")


def _check_same(a: Result, b: Result) -> None:
    for ours, theirs in itertools.zip_longest(a.tracks, b.tracks):
        if ours is None or theirs is None or ours.name != theirs.name:
            names = [track.name if track else "none" for track in (ours, theirs)]
            raise UserError(
                f"the tracks differ: {names[0]} in A where B has {names[1]}"
                f" ({len(a.tracks)} and {len(b.tracks)} tracks); expected results of the same songs"
            )
        for what in ("audio_seconds", "sample_rate", "silent"):
            if (left := getattr(ours, what)) != (right := getattr(theirs, what)):
                raise UserError(
                    f"{ours.name} differs: {what} is {left} in A and {right} in B; expected"
                    " results of the same songs"
                )
        floors = [
            track.references["mixture"].metrics["utterance_sdr"]
            for track in (ours, theirs)
            if "mixture" in track.references
        ]
        known = [floor for floor in floors if floor is not None]
        if len(known) == 2 and abs(known[0] - known[1]) > _SAME_AUDIO_DB:
            raise UserError(
                f"{ours.name} differs: the mixture as estimate scores {known[0]:.3f} dB in A and"
                f" {known[1]:.3f} dB in B; expected results of the same audio"
            )
    for metric in a.protocols.keys() & b.protocols.keys():
        if a.protocols[metric] != b.protocols[metric]:
            raise UserError(
                f"the protocols differ: {metric} is {a.protocols[metric]!r} in A and"
                f" {b.protocols[metric]!r} in B; score one of them again"
            )
