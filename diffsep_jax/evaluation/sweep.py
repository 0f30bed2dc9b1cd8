"""A grid of sampler settings: parsed from the command line, without what is the same twice.

`steps=20,50,100 eta=0,0.4 cutoff-hz=none,5000` has 3 x (1 + 2) points, for without fresh noise
there is nothing to filter.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.results import Condition
from diffsep_jax.inference.settings import (
    DEFAULT_PRESET,
    Preset,
    Sampler,
    SamplerOptions,
    SamplerSettings,
)


def _sampler(text: str) -> str:
    if text not in get_args(Sampler):
        raise ValueError
    return text


def _cutoff(text: str) -> float:
    return 0.0 if text.lower() == "none" else float(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "sampler": _sampler,
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
        if getattr(options, field) is not None:
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
    # Every sampler has its share of the other axes, and ddim makes use of all of them.
    first = {name: each[0] for name, each in values.items()}
    first |= {"sampler": "ddim"} if "sampler" in values else {}
    base = dataclasses.replace(options, **first).settings(default)
    grid = [
        simplest(dataclasses.replace(base, **dict(zip(values, point, strict=True))))
        for point in itertools.product(*values.values())
    ]
    points = list(dict.fromkeys(grid))
    samplers = [point.sampler for point in points]
    points.sort(key=lambda point: samplers.index(point.sampler))
    return Sweep(points, len(grid) - len(points))


def simplest(settings: SamplerSettings) -> SamplerSettings:
    """The settings that give the same vocals with all that plays no part at its plainest.

    The direct estimate has no parameter. Fresh noise, and so its filter, is of ddim with eta above
    0 and more than one step; a schedule is of more than one step.
    """
    if settings.sampler == "direct":
        return SamplerSettings(sampler="direct", steps=1, eta=0.0, cutoff_hz=0.0)
    eta = settings.eta if settings.sampler == "ddim" and settings.steps > 1 else 0.0
    cutoff_hz = settings.cutoff_hz if eta else 0.0
    schedule = settings.schedule if settings.steps > 1 else 1.0
    return dataclasses.replace(settings, eta=eta, cutoff_hz=cutoff_hz, schedule=schedule)


def is_deterministic(settings: SamplerSettings) -> bool:
    """Whether the seed plays no part."""
    settings = simplest(settings)
    return settings.sampler == "direct" or (settings.temperature == 0 and settings.eta == 0)


def label(settings: SamplerSettings) -> str:
    """The parameters that play a part, by the paper's names: "T=50 eta=0.4 fc=5000"."""
    settings = simplest(settings)
    if settings.sampler == "direct":
        return "direct"
    parts = [f"T={settings.steps}"]
    if settings.sampler == "ddim":
        parts.append(f"eta={number_label(settings.eta)}")
    else:
        parts.insert(0, settings.sampler)
    if settings.eta:
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
