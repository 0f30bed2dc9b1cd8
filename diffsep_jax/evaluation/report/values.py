"""The values that the page shows, and how they are written."""

from collections.abc import Sequence

from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS
from diffsep_jax.evaluation.results import Result, Score, Track
from diffsep_jax.evaluation.summary import values_of
from diffsep_jax.evaluation.tables import INFINITE_DB

LEAD = "utterance_sdr"
"""The metric by which conditions and tracks are ranked."""

LEAD_TITLE = GROUP_TITLES[METRICS[LEAD].group]
"""Its protocol's name."""

MANY = 6
"""With more conditions than these, tables of all of them are folded."""

NONE = "\N{EN DASH}"
"""Where there is no value."""


def value(scores: Sequence[Score], metric: str) -> float | None:
    """A track's value, the mean over repeats; None unless every repeat has one."""
    values = values_of([scores], metric)
    return float(values.mean()) if len(values) else None


def estimate_value(track: Track, condition: str, metric: str = LEAD) -> float | None:
    """A track's value for the estimate of a condition."""
    return value(track.estimates.get(condition, ()), metric)


def reference_value(track: Track, reference: str, metric: str = LEAD) -> float | None:
    """A track's value for one of `protocols.REFERENCES`."""
    score = track.references.get(reference)
    return None if score is None else value((score,), metric)


def best_condition(result: Result) -> str:
    """The name of the condition with the highest median; the first of several."""

    def median(name: str) -> float:
        statistic = result.summary.conditions[name].statistics[LEAD]
        return float("-inf") if statistic.median is None else statistic.median

    return max((condition.name for condition in result.conditions), key=median)


def number(value: float | None, digits: int = 2) -> str:
    """With a true minus sign; a dash for None, and infinity for what stands for it."""
    if value is None:
        return NONE
    if abs(value) >= INFINITE_DB:
        return true_minus("∞" if value > 0 else "-∞")
    return true_minus(f"{value:.{digits}f}")


def gain(value: float | None) -> str:
    """With its sign; a dash for None."""
    return NONE if value is None else true_minus(f"{value:+.2f}")


def true_minus(text: str) -> str:
    """With the sign that is as wide as a digit."""
    return text.replace("-", "\N{MINUS SIGN}")


def interval(ends: tuple[float, float] | None) -> str:
    """Both ends; a dash for None."""
    return NONE if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def metric_title(metric: str) -> str:
    """Its title and which way is better, for a caption."""
    found = METRICS[metric]
    unit = f", {found.unit}" if found.unit else ""
    if found.best is not None:
        return f"{found.title}{unit}, {found.best:g} is best"
    return f"{found.title}{unit}, {'higher' if found.higher_is_better else 'lower'} is better"
