"""How to sample: settings, presets and options. Only another sampler compiles another program."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypedDict

import tyro

from diffsep_jax.errors import UserError
from diffsep_jax.samplers import (
    SAMPLERS,
    SETTINGS,
    Sampler,
    adams_bashforth_2,
    check_frequency,
    check_settings,
    ddim,
    find_sampler,
)

Preset = Literal["fast", "balanced", "best"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """All settings of a sampler; by default the paper's. `SamplerOptions` describes them.

    Attributes:
      sampler: a name in `samplers.SAMPLERS`, or a function as `register_sampler` takes it. Each
        function is compiled once: pass the same object again rather than a new lambda.

    Raises:
      UserError: an unknown sampler, or a value outside its range in `samplers.SETTINGS`.
    """

    sampler: str | Callable[..., Any] = "ddim"
    steps: int = 50
    eta: float = 0.4
    cutoff_hz: float = 5000.0
    start_sigma: float = 1.0
    schedule: float = 1.0
    temperature: float = 1.0
    crossover_hz: float = 0.0
    ensemble: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        method = find_sampler(self.sampler)
        if isinstance(self.sampler, str):  # in any case
            object.__setattr__(self, "sampler", method.name)
        check_settings(**{name: getattr(self, name) for name in SETTINGS})

    @property
    def method(self) -> Sampler:
        """The sampler, with its function."""
        return find_sampler(self.sampler)

    def check_rate(self, sample_rate: int) -> None:
        """Raises UserError unless frequencies with an effect are below half the rate in Hz."""
        for name in ("cutoff_hz", "crossover_hz"):
            if name in self.method.uses:
                check_frequency(name, getattr(self, name), sample_rate)

    def check_refines(self) -> None:
        """Raises UserError unless these settings use given vocals."""
        uses = self.method.uses
        starts_from_them = "start_sigma" in uses and self.start_sigma < 1
        if not (starts_from_them or ("crossover_hz" in uses and self.crossover_hz)):
            raise UserError(
                f"sampler is {self.method.name} with start_sigma {self.start_sigma:g}, which keeps"
                " nothing of the vocals to refine; expected a start_sigma below 1, for example 0.3,"
                " or a crossover_hz, with a sampler that takes it"
            )


PAPER = SamplerSettings()
"""Settings of a sampler that is chosen without a preset."""

PRESETS: Mapping[Preset, SamplerSettings] = {
    "fast": SamplerSettings(sampler="direct"),
    "balanced": SamplerSettings(sampler="ab2", steps=4, schedule=3.0, crossover_hz=3500.0),
    "best": SamplerSettings(sampler="ab2", steps=8, schedule=3.0, crossover_hz=2000.0),
}
"""What each costs and scores is measured in docs/separate.md."""

REFINE = SamplerSettings(sampler="ab2", steps=8, start_sigma=0.5)
"""Settings for given vocals where neither a preset nor a sampler is chosen."""

DEFAULT_PRESET: Preset = "balanced"
"""Preset of a model whose config.json names none."""

_OF_THE_PRESET = tyro.conf.arg(help_behavior_hint="(default: the preset's)")


class SamplerOptions(TypedDict, total=False):
    """Options of a sampler. Those that are missing or None come from the preset."""

    preset: Annotated[
        Preset,
        tyro.conf.arg(
            constructor=str,
            metavar="{" + ",".join(PRESETS) + "}",
            help_behavior_hint="(default: the model's)",
        ),
    ]
    """See docs/separate.md; options given with it take precedence."""

    sampler: Annotated[
        str | Callable[..., Any],
        tyro.conf.arg(
            constructor=str,
            metavar="{" + ",".join(SAMPLERS) + "}",
            help="; ".join(f"{name}: {each.help}" for name, each in SAMPLERS.items())
            + ". Without a preset, the other options are then the paper's.",
            help_behavior_hint="(default: the preset's)",
        ),
    ]
    """The sampler: a name, or in Python a function."""

    steps: Annotated[int, _OF_THE_PRESET]
    """Network calls for each chunk, 1 to 1,000,000."""

    eta: Annotated[float, _OF_THE_PRESET]
    """Share of fresh noise in each step of ddim: 0 (none) to 1."""

    cutoff_hz: Annotated[float, _OF_THE_PRESET]
    """Corner in Hz of the high-pass filter on the fresh noise; 0 leaves it white."""

    start_sigma: Annotated[float, _OF_THE_PRESET]
    """Noise at the start: 1 is all noise; lower keeps more of the direct estimate, or of refine."""

    schedule: Annotated[float, _OF_THE_PRESET]
    """Exponent p of the noise levels start_sigma (i/T)^p, 0.1 to 8; above 1, more are low."""

    temperature: Annotated[float, _OF_THE_PRESET]
    """Scale of the initial noise, 0 to 2: below 1, samples vary less."""

    crossover_hz: Annotated[float, _OF_THE_PRESET]
    """Keep the direct estimate (or refine) below this frequency, the sample above; 0 is off."""

    ensemble: Annotated[int, _OF_THE_PRESET]
    """Mean of this many separations: seed, seed + 1, ...; as many times slower."""

    seed: Annotated[int, _OF_THE_PRESET]
    """Seed of the noise: the same seed gives the same vocals."""


def complete(
    options: SamplerOptions, default: Preset = DEFAULT_PRESET, *, refines: bool = False
) -> SamplerSettings:
    """All settings: the options, and the rest from a base.

    The base is the first of these that applies: the preset among the options; the paper's settings
    if a sampler is given; `REFINE` if there are vocals to start from (`refines`); `DEFAULT_PRESET`
    if `default`, the model's preset, draws nothing but the options need a sample; `default`.
    Without a preset or sampler among the options, the paper's sampler replaces one that does not
    use an option (eta, cutoff_hz).

    Raises:
      UserError: values out of range, or options that contradict each other.
      TypeError: an unknown option.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - SamplerOptions.__annotations__.keys():
        raise TypeError(f"unknown options of the sampler: {', '.join(sorted(unknown))}")
    preset: Any = given.pop("preset", None)
    preset, sampler = preset.lower() if preset else None, given.get("sampler")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"preset is {preset}; expected one of {', '.join(PRESETS)}")
    if preset is not None:
        base = PRESETS[preset]
    elif sampler is not None:
        base = PAPER
    elif refines:
        base = REFINE
    elif given and not PRESETS[default].method.uses:
        base = PRESETS[DEFAULT_PRESET]
    else:
        base = PRESETS[default]
    if preset is None and sampler is None and not base.method.uses.issuperset(given):
        base = dataclasses.replace(base, sampler=PAPER.sampler)
    settings = dataclasses.replace(base, **given)
    uses = settings.method.uses
    named = f"preset {preset}" if sampler is None else f"sampler {settings.method.name}"
    if preset is not None and bool(uses) != bool(base.method.uses):
        raise UserError(f"{named} contradicts preset {preset}; give one of them")
    if useless := [name for name in given if name not in {"sampler", *uses}]:
        raise UserError(f"{named} does not use {', '.join(useless)}; leave one of them out")
    return settings


def without_effect(settings: SamplerSettings) -> set[str]:
    """Settings that change nothing, given the others.

    With a single step the samplers of this package use neither a schedule nor fresh noise, and the
    filter applies to the fresh noise of eta. Of other samplers all settings have an effect.
    """
    uses = settings.method.uses
    useless = SETTINGS.keys() - uses
    if settings.method.function in (ddim, adams_bashforth_2) and settings.steps == 1:
        useless |= {"eta", "schedule"}
    if "eta" in uses and ("eta" in useless or settings.eta == 0):
        useless |= {"cutoff_hz"}
    return useless


def check_effect(options: SamplerOptions, settings: SamplerSettings) -> None:
    """Raises UserError if an option changes nothing, given the others."""
    given = {name for name, value in options.items() if value}
    if useless := sorted(given & without_effect(settings)):
        raise UserError(
            f"{', '.join(useless)} has no effect with steps {settings.steps} and eta"
            f" {settings.eta:g}; leave it out"
        )
