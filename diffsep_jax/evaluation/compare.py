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

# Wilcoxon's p of n differences is 2^(1 - n) at the least: 0.0625 of five.
_FEWEST_TRACKS = 6

_MOST_NAMES, _MOST_CONDITIONS = 5, 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two conditions on the tracks that both have.

    Attributes:
        metric: its name.
        a, b: names of the conditions.
        differences: B - A by track, means over repeats; of metrics that have a best value, of the
            distances to it.
        left_out: tracks that have no score in A or in B.
        median: of the differences.
        median_interval: its 95% confidence interval by bootstrap over tracks.
        mean: of the differences.
        p_value: of Wilcoxon's signed-rank test, two-sided: how often differences like these would
            come if neither was better. None if all are zero.
        seed_noise: standard error of the mean that the seeds alone give; None where a condition has
            one repeat of what draws noise, so that it cannot be known.
    """

    metric: str
    a: str
    b: str
    differences: dict[str, float]
    left_out: tuple[str, ...]
    median: float
    median_interval: Interval | None
    mean: float
    p_value: float | None
    seed_noise: float | None

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
        """The comparison in a line."""
        p_value = "" if self.p_value is None else f", Wilcoxon p = {self.p_value:.2g}"
        noise = self.seed_noise
        seeds = "" if not noise else f", seeds alone ±{noise:.2f} on the mean"
        left_out = ""
        if names := self.left_out:
            listed = ", ".join(names[:_MOST_NAMES])
            more = len(names) - _MOST_NAMES
            listed += f" and {more} more" if more > 0 else ""
            left_out = f"; {len(names)} left out, without a score ({listed})"
        return (
            f"median {self.median:+.2f} {interval(self.median_interval)}, mean {self.mean:+.2f};"
            f" {self.b} better on {self.better}, worse on {self.worse} of {len(self.differences)}"
            f"{left_out}{p_value}{seeds}: {self.verdict}"
        )


def compare(result: Result, a: str, b: str, metric: str = LEAD) -> Comparison | None:
    """Compares two conditions of a result by one metric; None if no track has it in both."""
    ours, theirs = (
        {track: METRICS[metric].to_compare(values) for track, values in found.items()}
        for found in (result.values(a, metric), result.values(b, metric))
    )
    both = [track for track in result.tracks if track in ours and track in theirs]
    if not both:
        return None
    differences = np.array([theirs[track].mean() - ours[track].mean() for track in both])
    return Comparison(
        metric=metric,
        a=a,
        b=b,
        differences=dict(zip(both, differences.tolist(), strict=True)),
        left_out=tuple(track for track in result.tracks if track not in both),
        median=float(np.median(differences)),
        median_interval=bootstrap_interval(differences[:, None], np.median),
        mean=float(differences.mean()),
        p_value=_p_value(differences),
        seed_noise=_seed_noise(
            result, a, b, [(ours[each], theirs[each]) for each in both], both[0]
        ),
    )


def comparison_lines(result: Result, best_first: Sequence[str]) -> Iterator[str]:
    """Of two conditions a line for each metric, of more the best one against each of the next."""
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


def _p_value(differences: Float[np.ndarray, "track"]) -> float | None:
    if not differences.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties and of few tracks, where it is approximate
        return float(scipy.stats.wilcoxon(differences).pvalue)


def _seed_noise(
    result: Result,
    a: str,
    b: str,
    pairs: Sequence[tuple[Float[np.ndarray, "repeat_a"], Float[np.ndarray, "repeat_b"]]],
    track: str,
) -> float | None:
    """The standard error of the mean over tracks; `track` is one of those that `pairs` are of.

    Where both conditions have the same seeds, their differences by seed tell it: equal noise often
    moves both alike. Otherwise the variances of the two add up.
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
    """Whether these settings draw noise; finished files, which have none, do not."""
    no_noise = settings.get("temperature") == 0 and not settings.get("eta")
    return not no_noise and settings.get("sampler", "direct") != "direct"


def difference_table(comparison: Comparison) -> Table:
    """The tracks of one metric, those that gain most first."""
    metric = METRICS[comparison.metric]
    what = f"{comparison.b} - {comparison.a}"
    by_gain = sorted(comparison.differences.items(), key=lambda item: -item[1])
    return Table(
        title=f"{what}, dB: {GROUP_TITLES[metric.group]}",
        header=["track", "difference"],
        rows=[[name, f"{difference:+.2f}"] for name, difference in by_gain],
    )
