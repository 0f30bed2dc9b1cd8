"""Is condition B of a result better than A, and is that more than chance?

The comparison is paired: each track's score in B less its score in A, so that easy and hard songs
do not hide what changed.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float

from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS
from diffsep_jax.evaluation.scores import Result
from diffsep_jax.evaluation.summary import LEAD, Interval, bootstrap_interval
from diffsep_jax.evaluation.tables import Table, interval

SIGNIFICANCE = 0.05

# The smallest p-value of Wilcoxon's test for n differences is 2^(1 - n): 0.0625 for five.
_FEWEST_TRACKS = 6

_MOST_CONDITIONS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two conditions on the tracks that both have.

    Attributes:
        metric: name of the metric.
        a, b: names of the conditions.
        differences: B - A by track, of the means over repeats; for metrics with a best value, of
            the distances to it.
        left_out: number of tracks that have no score in A or in B.
        median_interval: 95% confidence interval of the median by bootstrap over tracks.
        p_value: result of Wilcoxon's signed-rank test, two-sided: how often such differences would
            occur if neither were better. None if all differences are zero.
        seed_noise: standard error of the mean due to the seeds alone; None if it is unknown, as
            a condition that draws noise has only one repeat.
    """

    metric: str
    a: str
    b: str
    differences: dict[str, float]
    left_out: int
    median_interval: Interval | None
    p_value: float | None
    seed_noise: float | None

    @property
    def median(self) -> float:
        """Of the differences."""
        return float(np.median(list(self.differences.values())))

    @property
    def mean(self) -> float:
        """Of the differences."""
        return float(np.mean(list(self.differences.values())))

    @property
    def better(self) -> int:
        """Number of tracks on which B is better."""
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        return sum(sign * difference > 0 for difference in self.differences.values())

    @property
    def worse(self) -> int:
        """Number of tracks on which A is better."""
        return sum(difference != 0 for difference in self.differences.values()) - self.better

    @property
    def verdict(self) -> str:
        """Which is better, and whether that is more than chance."""
        ends = self.median_interval
        if self.p_value is None:
            return "no difference"
        if (num_differ := self.better + self.worse) < _FEWEST_TRACKS:
            return f"too few tracks to tell: {num_differ} differ, and {_FEWEST_TRACKS} are needed"
        if ends is None or self.p_value >= SIGNIFICANCE or ends[0] <= 0 <= ends[1]:
            return "no more than these tracks' differences give by chance"
        higher = (self.median > 0) == METRICS[self.metric].higher_is_better
        winner = self.b if higher else self.a
        if self.seed_noise is None:
            return f"{winner} is better, by one draw; --repeats 5 tells more"
        if abs(self.mean) <= 2 * self.seed_noise:
            return "no more than other seeds would give"
        if self.mean * self.median < 0:
            return "median and mean disagree: a few tracks differ far more than the others"
        return f"{winner} is better, by more than chance"

    def __str__(self) -> str:
        left_out = f"; {self.left_out} left out, without a score" if self.left_out else ""
        p_value = "" if self.p_value is None else f", Wilcoxon p = {self.p_value:.2g}"
        seeds = f", seeds alone ±{self.seed_noise:.2f} on the mean" if self.seed_noise else ""
        return (
            f"median {self.median:+.2f} {interval(self.median_interval)}, mean {self.mean:+.2f};"
            f" {self.b} better on {self.better}, worse on {self.worse} of {len(self.differences)}"
            f"{left_out}{p_value}{seeds}: {self.verdict}"
        )


def compare(result: Result, a: str, b: str, metric: str = LEAD) -> Comparison | None:
    """Compares condition `b` with `a` (differences are b - a). None if no track has both."""
    ours, theirs = (
        {track: METRICS[metric].to_compare(values) for track, values in found.items()}
        for found in (result.values(a, metric), result.values(b, metric))
    )
    both = [track for track in ours if track in theirs]
    if not both:
        return None
    differences = np.array([theirs[track].mean() - ours[track].mean() for track in both])
    return Comparison(
        metric=metric,
        a=a,
        b=b,
        differences=dict(zip(both, differences.tolist(), strict=True)),
        left_out=len(result.tracks) - len(both),
        median_interval=bootstrap_interval(differences[:, None], np.median),
        p_value=_p_value(differences),
        seed_noise=_seed_noise(
            result, a, b, [(ours[each], theirs[each]) for each in both], both[0]
        ),
    )


def comparison_lines(result: Result, best_first: Sequence[str]) -> Iterator[str]:
    """For two conditions a line per metric; for more, the best against each of the next six."""
    if len(best_first) == 2:
        a, b = result.conditions
        for metric in result.protocols:
            if found := compare(result, a, b, metric):
                best = METRICS[metric].best
                distance = "" if best is None else f", distance from {best:g}"
                yield f"{METRICS[metric].full_title}{distance}, {b} - {a}: {found}"
    else:
        winner, *others = best_first
        for other in others[:_MOST_CONDITIONS]:
            if found := compare(result, other, winner):
                yield f"{winner} - {other}: {found}"


def difference_table(comparison: Comparison) -> Table:
    """The differences of one metric by track, the largest first."""
    group = METRICS[comparison.metric].group
    by_gain = sorted(comparison.differences.items(), key=lambda item: -item[1])
    return Table(
        title=f"{comparison.b} - {comparison.a}, dB: {GROUP_TITLES[group]}",
        header=["track", "difference"],
        rows=[[name, f"{difference:+.2f}"] for name, difference in by_gain],
    )


def _p_value(differences: Float[np.ndarray, "track"]) -> float | None:
    if not differences.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with ties and with few tracks it is approximate
        return float(scipy.stats.wilcoxon(differences).pvalue)


def _seed_noise(
    result: Result,
    a: str,
    b: str,
    pairs: Sequence[tuple[Float[np.ndarray, "repeat_a"], Float[np.ndarray, "repeat_b"]]],
    track: str,
) -> float | None:
    """The standard error of the mean over tracks that the seeds cause.

    If both conditions have the same seeds, it follows from the differences by seed, as equal noise
    often moves both alike; otherwise their variances add up.

    Args:
        result: has both conditions.
        a, b: names of the conditions.
        pairs: values of A and B for each track.
        track: one of these tracks; all have the same seeds.
    """
    seeds = [[row["seed"] for row in result.repeats(name, track)] for name in (a, b)]
    draws = [_draws(result.conditions.get(name, {})) for name in (a, b)]
    if all(draws) and seeds[0] == seeds[1]:
        samples = [[theirs - ours for ours, theirs in pairs]]
    else:
        samples = [
            list(side) for side, drawn in zip(zip(*pairs, strict=True), draws, strict=True) if drawn
        ]
    if any(values.size < 2 for side in samples for values in side):
        return None
    variance = sum(float(values.var(ddof=1)) / values.size for side in samples for values in side)
    return math.sqrt(variance) / len(pairs)


def _draws(settings: dict[str, object]) -> bool:
    """Whether these settings draw noise; files of other programs have no settings and do not."""
    no_noise = settings.get("temperature") == 0 and not settings.get("eta")
    return not no_noise and settings.get("sampler", "direct") != "direct"
