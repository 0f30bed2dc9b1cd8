"""A grid of sampler settings, parsed from the command line, without points that are equivalent.

`steps=20,50,100 eta=0,0.4 cutoff-hz=none,5000` has 3 x (1 + 2) points, as without fresh noise there
is nothing to filter.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from diffsep_jax.errors import UserError
from diffsep_jax.inference.settings import (
    DEFAULT_PRESET,
    Preset,
    SamplerOptions,
    SamplerSettings,
    complete,
    without_effect,
)


def _cutoff(text: str) -> float:
    return 0.0 if text.lower() == "none" else float(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "preset": str,
    "sampler": str,
    "steps": int,
    "eta": float,
    "cutoff_hz": _cutoff,
    "start_sigma": float,
    "schedule": float,
    "temperature": float,
    "crossover_hz": float,
    "ensemble": int,
}


class Sweep(NamedTuple):
    """The points of a grid, and the number of points left out as equivalent to one of them."""

    points: list[SamplerSettings]
    num_same: int


def parse_sweep(
    axes: Sequence[str], options: SamplerOptions, default: Preset = DEFAULT_PRESET
) -> Sweep:
    """The grid of axes such as "steps=20,50,100"; all else is set by the options and the preset.

    The sampler varies slowest, then the first axis. Raises UserError for unknown axes and values
    out of range.
    """
    values: dict[str, list[Any]] = {}
    for axis in axes:
        name, _, listed = axis.partition("=")
        field = name.strip().lower().replace("-", "_")
        if field not in _PARSERS or not listed:
            known = ", ".join(name.replace("_", "-") for name in _PARSERS)
            raise UserError(f"sweep is {axis}; expected NAME=VALUE,VALUE,... with NAME of {known}")
        if field in options or field in values:
            raise UserError(f"sweep has {axis}, but {name} is given twice; expected it once")
        try:
            values[field] = [_PARSERS[field](text.strip()) for text in listed.split(",")]
        except ValueError:
            raise UserError(
                f"sweep is {axis}; expected values such as steps=20,50 eta=0,0.4"
                " cutoff-hz=none,5000"
            ) from None
    grid = []
    for preset in values.pop("preset", [options.get("preset")]):
        first = {name: each[0] for name, each in values.items()}
        if "sampler" in values:  # ddim uses every other axis; each sampler has those that it uses
            first["sampler"] = "ddim"
        if preset is not None:
            first["preset"] = preset
        base = complete(cast(SamplerOptions, {**options, **first}), default)
        grid += [
            simplest(dataclasses.replace(base, **dict(zip(values, point, strict=True))))
            for point in itertools.product(*values.values())
        ]
    points = list(dict.fromkeys(grid))
    samplers = [point.sampler for point in points]
    points.sort(key=lambda point: samplers.index(point.sampler))
    return Sweep(points, len(grid) - len(points))


_PLAIN: dict[str, Any] = {
    "steps": 1,
    "eta": 0.0,
    "cutoff_hz": 0.0,
    "start_sigma": 1.0,
    "schedule": 1.0,
    "temperature": 1.0,
    "crossover_hz": 0.0,
    "ensemble": 1,
    "seed": 0,
}
"""Values of settings that have no effect."""

SHORT_NAMES = {
    "start_sigma": "start",
    "schedule": "p",
    "temperature": "temperature",
    "crossover_hz": "crossover",
    "ensemble": "ensemble",
}
"""Names in tables and labels, where a value is not that of `_PLAIN`."""


def simplest(settings: SamplerSettings) -> SamplerSettings:
    """Equivalent settings, in which every setting without effect has its plain value."""
    plain = {name: _PLAIN[name] for name in without_effect(settings)}
    return dataclasses.replace(settings, **plain)


def is_deterministic(settings: SamplerSettings) -> bool:
    """Whether nothing is drawn, neither at the start nor later, so that the seed has no effect."""
    settings = simplest(settings)
    method = settings.method
    draws_later = "noise_fn" in method.keywords and ("eta" not in method.uses or settings.eta > 0)
    return method.function is None or (settings.temperature == 0 and not draws_later)


def label(settings: SamplerSettings) -> str:
    """The settings that have an effect, by the paper's names: "T=50 eta=0.4 fc=5000"."""
    settings = simplest(settings)
    method = settings.method
    parts = [] if method.name == "ddim" else [method.name]
    if "steps" in method.uses:
        parts.append(f"T={settings.steps}")
    if "eta" in method.uses:
        parts.append(f"eta={number_label(settings.eta)}")
    if "cutoff_hz" in method.uses and ("eta" not in method.uses or settings.eta):
        parts.append(f"fc={cutoff_label(settings.cutoff_hz)}")
    for field, name in SHORT_NAMES.items():
        if (value := getattr(settings, field)) != _PLAIN[field]:
            parts.append(f"{name}={number_label(value)}")
    return " ".join(parts)


def line_and_steps(name: str, settings: Mapping[str, Any]) -> tuple[str, int | None]:
    """A condition's line in the plot of quality against time, and the steps if its name has them.

    A line joins conditions whose names differ only in the steps.
    """
    steps = settings.get("steps")
    words = name.split()
    rest = [word for word in words if word != f"T={steps}"]
    return " ".join(rest) or "steps alone", steps if len(rest) < len(words) else None


def cutoff_label(cutoff_hz: float | None) -> str:
    """A cutoff in Hz, or "none"."""
    return number_label(cutoff_hz) if cutoff_hz else "none"


def number_label(value: int | float) -> str:
    """The shortest text that reads as this number and no other, without a needless ".0"."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")
