"""A grid of sampler settings: parsed from the command line, without what is the same twice.

`steps=20,50,100 eta=0,0.4 cutoff-hz=none,5000` has 3 x (1 + 2) points, for without fresh noise
there is nothing to filter.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.results import Condition
from diffsep_jax.inference.settings import (
    DEFAULT_PRESET,
    Preset,
    SamplerOptions,
    SamplerSettings,
    complete,
)
from diffsep_jax.samplers import adams_bashforth_2, ddim


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
    """The points of a grid, and how many more there would be if none were the same as another."""

    points: list[SamplerSettings]
    num_same: int


def parse_sweep(
    axes: Sequence[str], options: SamplerOptions, default: Preset = DEFAULT_PRESET
) -> Sweep:
    """The grid of axes such as "steps=20,50,100", the rest by the options and the model's preset.

    The sampler varies slowest, then the first axis. Raises UserError for an axis that is none, and
    for bad values.
    """
    values: dict[str, list[Any]] = {}
    for axis in axes:
        name, _, listed = axis.partition("=")
        field = name.strip().lower().replace("-", "_")
        if field not in _PARSERS or not listed:
            known = ", ".join(name.replace("_", "-") for name in _PARSERS)
            raise UserError(f"sweep {axis!r}, expected NAME=VALUE,VALUE,... with NAME of {known}")
        if field in options:
            raise UserError(f"sweep {axis!r}: {field} is an option too; leave one of them out")
        if field in values:
            raise UserError(f"sweep {axis!r}: {name} was given before; list all values once")
        try:
            values[field] = [_PARSERS[field](text.strip()) for text in listed.split(",")]
        except ValueError:
            raise UserError(
                f"sweep {axis!r}: a value is no {_PARSERS[field].__name__.strip('_')};"
                " expected for example steps=20,50 eta=0,0.4 cutoff-hz=none,5000"
            ) from None
    presets = values.pop("preset", [options.get("preset")])
    grid = []
    for preset in presets:
        first = {name: each[0] for name, each in values.items()}
        if "sampler" in values:  # each has its share of the other axes; ddim uses all of them
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
"""Values of settings that play no part."""


def simplest(settings: SamplerSettings) -> SamplerSettings:
    """The settings that give the same vocals with all that plays no part at its plainest.

    A single step of the samplers here has neither a schedule nor fresh noise, and the filter is of
    the noise that eta adds. Of others, all that they use plays a part.
    """
    uses = settings.method.uses
    useless = _PLAIN.keys() - uses
    if settings.method.function in (ddim, adams_bashforth_2) and settings.steps == 1:
        useless |= {"eta", "schedule"}
    if "eta" in uses and ("eta" in useless or settings.eta == 0):
        useless |= {"cutoff_hz"}
    return dataclasses.replace(settings, **{name: _PLAIN[name] for name in useless})


def is_deterministic(settings: SamplerSettings) -> bool:
    """Whether the seed plays no part: nothing is drawn, at the start or later."""
    settings = simplest(settings)
    method = settings.method
    draws_later = "noise_fn" in method.keywords and ("eta" not in method.uses or settings.eta > 0)
    return method.function is None or (settings.temperature == 0 and not draws_later)


def label(settings: SamplerSettings) -> str:
    """The parameters that play a part, by the paper's names: "T=50 eta=0.4 fc=5000"."""
    settings = simplest(settings)
    method = settings.method
    parts = [] if method.name == "ddim" else [method.name]
    if "steps" in method.uses:
        parts.append(f"T={settings.steps}")
    if "eta" in method.uses:
        parts.append(f"eta={number_label(settings.eta)}")
    if "cutoff_hz" in method.uses and ("eta" not in method.uses or settings.eta):
        parts.append(f"fc={cutoff_label(settings.cutoff_hz)}")
    if settings.start_sigma < 1:
        parts.append(f"start={number_label(settings.start_sigma)}")
    if settings.schedule != 1:
        parts.append(f"p={number_label(settings.schedule)}")
    if settings.temperature != 1:
        parts.append(f"temperature={number_label(settings.temperature)}")
    if settings.crossover_hz:
        parts.append(f"crossover={number_label(settings.crossover_hz)}")
    if settings.ensemble > 1:
        parts.append(f"ensemble={settings.ensemble}")
    return " ".join(parts)


def line_and_steps(condition: Condition) -> tuple[str, int | None]:
    """What the points of a line of quality against time share, and the steps, if they are named."""
    steps = condition.settings.get("steps")
    words = condition.name.split()
    rest = [word for word in words if word != f"T={steps}"]
    return " ".join(rest) or "steps alone", steps if len(rest) < len(words) else None


def cutoff_label(cutoff_hz: float | None) -> str:
    """A cutoff in Hz, or "none"."""
    return number_label(cutoff_hz) if cutoff_hz else "none"


def number_label(value: float) -> str:
    """The shortest text that reads as this float and no other, without a needless ".0"."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value)).removesuffix(".0")
