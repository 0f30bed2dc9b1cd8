"""Quality against time: utterance SDR over real-time factor, named by the sampler's settings."""

import itertools
from pathlib import Path

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.protocols import GROUP_TITLES, REFERENCES
from diffsep_jax.evaluation.results import Result
from diffsep_jax.evaluation.sweep import line_and_steps
from diffsep_jax.evaluation.tables import decibels
from diffsep_jax.files import replacing

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ModuleNotFoundError:
    raise UserError(
        "the plot needs the package matplotlib, which is not installed; "
        "pip install 'diffsep-jax[demo]'"
    ) from None

DPI = 130
_MARKERS = "osD^vP*X"


def save_quality_plot(path: Path, result: Result) -> None:
    """Writes a png with one line for each way to sample, along which the number of steps grows.

    Conditions without a time or a score are left out. UserError if the file cannot be written.
    """
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for condition in result.conditions:
        summary = result.summary.conditions[condition.name]
        sdr = summary.statistics["utterance_sdr"].median
        if sdr is not None and summary.real_time_factor is not None:
            name, steps = line_and_steps(condition)
            own = "" if steps is None else f"T={steps}"
            lines.setdefault(name, []).append((summary.real_time_factor, sdr, own))
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for (name, points), marker in zip(lines.items(), itertools.cycle(_MARKERS), strict=False):
        times, scores, _ = zip(*sorted(points), strict=True)
        axes.plot(times, scores, marker=marker, label=name, linewidth=1, markersize=5)
    _name_steps(axes, lines)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("real-time factor: seconds of work for a second of audio")
    axes.set_ylabel("median over tracks, dB")
    axes.set_title(f"{GROUP_TITLES['utterance']}\n{_beside(result)}", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    if lines:
        figure.legend(loc="outside right upper", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _beside(result: Result) -> str:
    """The references, which would squeeze the lines together if they were drawn."""
    medians = {
        REFERENCES[name]: statistics["utterance_sdr"].median
        for name, statistics in result.summary.references.items()
    }
    return ", ".join(f"{name} {decibels(value)}" for name, value in medians.items())


def _name_steps(axes: Axes, lines: dict[str, list[tuple[float, float, str]]]) -> None:
    """The steps above the best of the points that share them, as these take about one time."""
    best: dict[str, tuple[float, float]] = {}
    for time, sdr, steps in itertools.chain.from_iterable(lines.values()):
        if steps not in best or sdr > best[steps][1]:
            best[steps] = time, sdr
    for steps, point in best.items():
        axes.annotate(
            steps, point, xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center"
        )
