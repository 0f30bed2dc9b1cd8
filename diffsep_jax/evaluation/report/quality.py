"""Quality against time: every condition of a sweep as a point, and a table that is its legend."""

import itertools
import math
from typing import NamedTuple

from diffsep_jax.evaluation.protocols import REFERENCES
from diffsep_jax.evaluation.report.strips import Axis
from diffsep_jax.evaluation.report.values import LEAD, LEAD_TITLE, NONE, interval, number
from diffsep_jax.evaluation.results import Result
from diffsep_jax.evaluation.sweep import line_and_steps
from diffsep_jax.pages.document import escape

_SHAPES = (
    "M0-5.5a5.5 5.5 0 1 0 .01 0Z",
    "M-5-5H5V5H-5Z",
    "M0-6.5 6.2 5H-6.2Z",
    "M0-7 7 0 0 7-7 0Z",
    "M0 6.5-6.2-5H6.2Z",
    "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
)
_NUM_COLOURS = 6


class _Point(NamedTuple):
    condition: str
    steps: int | None
    real_time_factor: float
    sdr: float
    sdr_interval: tuple[float, float] | None


class _Series(NamedTuple):
    name: str
    colour: int
    shape: str
    points: list[_Point]

    def marker(self, title: str = "") -> str:
        """A drawing around the origin."""
        return f'<path class="c{self.colour}" d="{self.shape}">{title}</path>'


def section(result: Result) -> str:
    """The plot and its table; nothing where fewer than two conditions have a time and a score."""
    lines = _series(result)
    points = [point for series in lines for point in series.points]
    if len(points) < 2:
        return ""
    best = max(points, key=lambda point: point.sdr)
    beside = ", ".join(
        f"{REFERENCES[name]} {number(statistics[LEAD].median)}"
        for name, statistics in result.summary.references.items()
    )
    left_out = len(result.conditions) - len(points)
    told = f" {left_out} without a time or a score are not drawn." if left_out else ""
    return (
        '<section id="quality">\n<h2>Quality against time</h2>\n'
        f"<p>Each point is one setting of the sampler: the median {escape(LEAD_TITLE)}"
        " over the tracks, against the seconds of work that a second of audio takes. A line joins"
        f" settings that differ in their number of steps T alone.{told}</p>\n"
        f"<p>Best: <strong>{escape(best.condition)}</strong>, {number(best.sdr)} dB at"
        f" {number(best.real_time_factor)} s for a second of audio. Beside it, in dB:"
        f" {escape(beside)}.</p>\n"
        f"{_plot(lines, points)}{_table(lines)}</section>\n"
    )


def _series(result: Result) -> list[_Series]:
    found: dict[str, _Series] = {}
    colours: dict[object, int] = {}
    shapes: dict[object, int] = {}
    for condition in result.conditions:
        summary = result.summary.conditions[condition.name]
        statistic = summary.statistics[LEAD]
        if statistic.median is None or summary.real_time_factor is None:
            continue
        name, steps = line_and_steps(condition)
        settings = condition.settings
        colour = colours.setdefault(tuple(map(settings.get, ("sampler", "eta"))), len(colours))
        varied = ("start_sigma", "schedule", "temperature", "crossover_hz", "ensemble")
        rest = ("cutoff_hz", *varied)
        shape = shapes.setdefault(tuple(map(settings.get, rest)), len(shapes))
        series = found.setdefault(
            name, _Series(name, colour % _NUM_COLOURS, _SHAPES[shape % len(_SHAPES)], [])
        )
        series.points.append(
            _Point(
                condition.name,
                steps,
                summary.real_time_factor,
                statistic.median,
                statistic.median_interval,
            )
        )
    return list(found.values())


def _plot(lines: list[_Series], points: list[_Point]) -> str:
    across = Axis.over(math.log10(point.real_time_factor) for point in points)
    up = Axis.over(point.sdr for point in points)

    def y(value: float) -> str:
        return f"{100 * (1 - up.share(up.clip(value))):.2f}%"

    def x(point: _Point) -> str:
        return across.percent(math.log10(point.real_time_factor))

    times = _log_ticks(across)
    grid = [
        f'<line class="grid" x1="0" x2="100%" y1="{y(tick)}" y2="{y(tick)}"/>' for tick in up.ticks
    ] + [
        f'<line class="grid" x1="{place}" x2="{place}" y1="0" y2="100%"/>'
        for place in (across.percent(math.log10(time)) for time in times)
    ]
    drawn = []
    for series in lines:
        ordered = sorted(series.points, key=lambda point: point.real_time_factor)
        drawn += [
            f'<line class="c{series.colour}" x1="{x(a)}" y1="{y(a.sdr)}" x2="{x(b)}"'
            f' y2="{y(b.sdr)}"/>'
            for a, b in itertools.pairwise(ordered)
        ]
    for series in lines:
        for point in series.points:
            title = (
                f"<title>{escape(point.condition)}: {number(point.sdr)} dB,"
                f" {number(point.real_time_factor)} s for a second</title>"
            )
            drawn.append(
                f'<svg x="{x(point)}" y="{y(point.sdr)}" overflow="visible">'
                f"{series.marker(title)}</svg>"
            )
    labels = [
        f'<text x="{x(point)}" y="{y(point.sdr)}" dy="-11" text-anchor="middle">T={steps}</text>'
        for steps, point in _best_by_steps(points).items()
    ]
    heights = "".join(
        f'<text x="100%" dx="-8" y="{y(tick)}" dy="4" text-anchor="end">{up.label(tick)}</text>'
        for tick in up.ticks
    )
    widths = "".join(
        f'<text x="{across.percent(math.log10(time))}" y="16" text-anchor="middle">{time:g}</text>'
        for time in times
    )
    return (
        '<figure class="quality">\n<figcaption>median over tracks, dB</figcaption>\n'
        f'<svg class="heights" aria-hidden="true">{heights}</svg>\n'
        f'<svg class="points" role="img" aria-label="quality against time, {len(points)} points;'
        f' the table below has the same numbers">{"".join(grid + drawn + labels)}</svg>\n'
        f'<svg class="widths" aria-hidden="true">{widths}</svg>\n'
        "<p>real-time factor: seconds of work for a second of audio</p>\n</figure>\n"
    )


def _best_by_steps(points: list[_Point]) -> dict[int, _Point]:
    """The points that carry the steps' label, as settings of equal steps take about one time."""
    best: dict[int, _Point] = {}
    for point in sorted(points, key=lambda point: -point.sdr):
        if point.steps is not None:
            best.setdefault(point.steps, point)
    return best


def _log_ticks(across: Axis) -> list[float]:
    """Of 1, 2, 5 and their powers of ten in range; the powers alone where that would be many."""
    powers = range(math.floor(across.low), math.ceil(across.high) + 1)
    for mantissas in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,)):
        ticks = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        ticks = [tick for tick in ticks if across.low <= math.log10(tick) <= across.high]
        if len(ticks) <= 7:
            break
    return ticks


def _table(lines: list[_Series]) -> str:
    """A row for each line of the plot, with its marker, and a column for each number of steps."""
    columns = sorted(
        {point.steps for series in lines for point in series.points},
        key=lambda steps: (steps is not None, steps or 0),
    )
    heads = "".join(
        f'<th scope="col">{"one pass" if steps is None else f"T = {steps}"}</th>'
        for steps in columns
    )
    body = ""
    for series in lines:
        cells = ""
        for steps in columns:
            found = [point for point in series.points if point.steps == steps]
            cells += f"<td>{'<br>'.join(map(_cell, found)) or NONE}</td>"
        marker = (
            f'<svg class="marker" viewBox="-8 -8 16 16" aria-hidden="true">{series.marker()}</svg>'
        )
        body += f'<tr><th scope="row">{marker}{escape(series.name)}</th>{cells}</tr>\n'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="quality and time of each'
        ' setting">\n<table class="pivot">\n<caption><span>Median in dB, its 95% interval, and the'
        f" real-time factor</span><span class='protocol'>{escape(LEAD_TITLE)}</span>"
        f'</caption>\n<thead><tr><th scope="col">setting</th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _cell(point: _Point) -> str:
    return (
        f"<strong>{number(point.sdr)}</strong> <span class='soft'>{interval(point.sdr_interval)}"
        f"</span> <span class='soft'>{number(point.real_time_factor)} &times;</span>"
    )
