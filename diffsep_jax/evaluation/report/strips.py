"""Flat drawings on a shared axis, as wide as their place: boxes, dots, ticks, in inline SVG.

Positions across are percentages, so that a drawing stretches and its text and dots do not.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from diffsep_jax.evaluation.report.values import number, true_minus
from diffsep_jax.pages.document import escape

HEIGHT = 38
_MARGIN = 0.04

LIMIT_DB = 60.0
"""A ratio beyond it means that one of its parts is not there, as artefacts in the mixture.

On an axis it would squeeze all others together.
"""


class Axis(NamedTuple):
    """A range of values and where it is labelled."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Iterable[float], most_ticks: int = 6) -> "Axis":
        """An axis with room for all values up to `LIMIT_DB`; there may be none."""
        known = [value for value in values if abs(value) <= LIMIT_DB] or [0.0]
        low, high = min(known), max(known)
        if high - low < 0.1:
            low, high = low - 0.5, high + 0.5
        margin = _MARGIN * (high - low)
        low, high = low - margin, high + margin
        step = _step((high - low) / most_ticks)
        first, last = math.ceil(low / step), math.floor(high / step)
        return cls(low, high, tuple(i * step for i in range(first, last + 1)))

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)

    def clip(self, value: float) -> float:
        """The nearest value on the axis."""
        return min(max(value, self.low), self.high)

    def percent(self, value: float) -> str:
        """The place of a value, as SVG takes it."""
        return f"{100 * self.share(value):.2f}%"

    def label(self, tick: float) -> str:
        """A tick's text."""
        return true_minus(f"{tick:.6g}")


def _step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... and 0.1, 0.2, 0.5, ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * i for i in (1, 2, 5, 10) if power * i >= least * 0.999)


def axis_labels(axis: Axis) -> str:
    """The numbers above or below the strips; hidden from readers, who have the tables' text."""
    texts = "".join(
        f'<text x="{axis.percent(tick)}" y="13" text-anchor="middle">{axis.label(tick)}</text>'
        for tick in axis.ticks
    )
    return f'<svg class="ticks" height="18" aria-hidden="true">{texts}</svg>'


def box(axis: Axis, values: Mapping[str, float], median: float | None, *, name: str) -> str:
    """A box plot of the values by track, each a dot below it.

    The box holds the middle half, the whisker reaches the ends, and the line is at `median`. What
    is beyond the axis is an arrow at its end.
    """
    if not values:
        return f'<svg class="strip" height="{HEIGHT}" aria-hidden="true">{_grid(axis)}</svg>'
    known = list(values.values())
    low, high = np.quantile(known, [0.25, 0.75]).tolist()
    title = escape(
        f"{name}: {len(known)} tracks from {number(min(known))} to {number(max(known))}, "
        f"the middle half from {number(low)} to {number(high)}"
    )
    parts = [_grid(axis)]
    for at, beyond in ((0, min(known) < axis.low), (1, max(known) > axis.high)):
        if beyond:
            parts.append(_arrow(at))
    inside = {track: each for track, each in values.items() if axis.low <= each <= axis.high}
    if inside:
        start, end = axis.clip(min(known)), axis.clip(max(known))
        low, high = axis.clip(low), axis.clip(high)
        width = 100 * (axis.share(high) - axis.share(low))
        parts += [
            f'<line class="whisker" x1="{axis.percent(start)}" x2="{axis.percent(end)}" y1="14"'
            ' y2="14"/>',
            f'<rect class="box" x="{axis.percent(low)}" width="{width:.2f}%" y="7" height="14"'
            ' rx="2"/>',
        ]
    if median is not None and axis.low <= median <= axis.high:
        x = axis.percent(median)
        parts.append(f'<line class="median" x1="{x}" x2="{x}" y1="5" y2="23"/>')
    parts += [
        f'<circle cx="{axis.percent(each)}" cy="29" r="3"><title>{escape(track)}: {number(each)}'
        "</title></circle>"
        for track, each in inside.items()
    ]
    return _svg(title, parts)


def dumbbell(axis: Axis, *, start: float | None, end: float | None, bound: float | None) -> str:
    """From a ring to a dot, with a tick beyond; the row beside it says the same in numbers.

    What is beyond the axis is drawn at its end.
    """

    def place(value: float) -> str:
        return axis.percent(axis.clip(value))

    parts = [_grid(axis)]
    middle = HEIGHT // 2
    if start is not None and end is not None:
        parts.append(
            f'<line class="whisker" x1="{place(start)}" x2="{place(end)}"'
            f' y1="{middle}" y2="{middle}"/>'
        )
    if bound is not None:
        x = place(bound)
        parts.append(f'<line class="bound" x1="{x}" x2="{x}" y1="{middle - 7}" y2="{middle + 7}"/>')
    if start is not None:
        parts.append(f'<circle class="start" cx="{place(start)}" cy="{middle}" r="4"/>')
    if end is not None:
        parts.append(f'<circle class="end" cx="{place(end)}" cy="{middle}" r="5"/>')
    return f'<svg class="strip" height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'


def _arrow(at: int) -> str:
    """At the low end, 0, pointing to the left; at the high one, 1, to the right."""
    path = "M-9-6 0 0-9 6Z" if at else "M9-6 0 0 9 6Z"
    return f'<svg x="{100 * at}%" y="14" overflow="visible"><path class="arrow" d="{path}"/></svg>'


def _svg(title: str, parts: list[str]) -> str:
    return (
        f'<svg class="strip" height="{HEIGHT}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


def _grid(axis: Axis) -> str:
    return "".join(
        f'<line class="grid" x1="{axis.percent(tick)}" x2="{axis.percent(tick)}" y1="0"'
        f' y2="{HEIGHT}"/>'
        for tick in axis.ticks
    )
