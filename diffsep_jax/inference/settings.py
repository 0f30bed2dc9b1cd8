"""How to sample: the options of separation, none of which but the sampler compiles a program."""

import dataclasses
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Annotated, Any, Literal, TypedDict

import tyro

from diffsep_jax.errors import UserError
from diffsep_jax.samplers import SAMPLERS, Sampler, find_sampler

# Steps are counted in int32, and each refreshes noise of its own.
MAX_STEPS = 1_000_000

MAX_ENSEMBLE = 10_000

# Beyond these, levels fall together in float32, at 1 or at 0.
MIN_SCHEDULE, MAX_SCHEDULE = 0.1, 8

# Noise at -116 dB: lower levels change nothing that can be heard, and the smallest numbers of
# float32 would divide 0 by 0.
MIN_START_SIGMA = 1e-6

Preset = Literal["fast", "balanced", "best"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How to sample, completely; by default as in the paper. See `SamplerOptions`.

    Attributes:
      sampler: a name of `samplers.SAMPLERS`, or a function as `register_sampler` takes it. Each
        function is compiled once: pass the same object again, no new lambda.

    Raises:
      UserError: an unknown sampler, or a value out of its range.
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
        find_sampler(self.sampler)
        for name in ("steps", "ensemble", "seed"):
            if not isinstance(value := getattr(self, name), Integral):
                raise UserError(f"{name} is {value!r}; expected a whole number")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps is {self.steps}; expected 1 to {MAX_STEPS}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta}; expected 0 to 1")
        if not 0 <= self.cutoff_hz < float("inf"):
            raise UserError(f"cutoff_hz is {self.cutoff_hz}; expected 0 (white noise) or more Hz")
        if not MIN_START_SIGMA <= self.start_sigma <= 1:
            raise UserError(f"start_sigma is {self.start_sigma}; expected {MIN_START_SIGMA:g} to 1")
        if not MIN_SCHEDULE <= self.schedule <= MAX_SCHEDULE:
            raise UserError(
                f"schedule is {self.schedule}; expected {MIN_SCHEDULE} to {MAX_SCHEDULE}"
            )
        if not 0 <= self.temperature <= 2:
            raise UserError(f"temperature is {self.temperature}; expected 0 to 2")
        if not 0 <= self.crossover_hz < float("inf"):
            raise UserError(f"crossover_hz is {self.crossover_hz}; expected 0 (off) Hz or more")
        if not 1 <= self.ensemble <= MAX_ENSEMBLE:
            raise UserError(f"ensemble is {self.ensemble}; expected 1 to {MAX_ENSEMBLE}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; expected 0 to 2^32 - 1")

    @property
    def method(self) -> Sampler:
        """The sampler, with its function."""
        return find_sampler(self.sampler)

    def check_rate(self, sample_rate: int) -> None:
        """UserError if a frequency that plays a part is not below half of a model's rate in Hz."""
        for name in ("cutoff_hz", "crossover_hz"):
            frequency = getattr(self, name)
            if name in self.method.uses and frequency >= sample_rate / 2:
                raise UserError(
                    f"{name} is {frequency}; expected less than {sample_rate / 2}, half of the"
                    f" model's {sample_rate} Hz"
                )

    def check_refines(self) -> None:
        """UserError unless these settings make use of given vocals."""
        if self.method.function is None:
            others = ", ".join(name for name, each in SAMPLERS.items() if each.function)
            raise UserError(
                f"sampler is {self.sampler}, as in preset fast, and refines nothing; expected one"
                f" of {others}"
            )
        if self.crossover_hz:
            return
        if "start_sigma" not in self.method.uses:
            raise UserError(
                f"sampler is {self.method.name}, which takes no start_sigma and keeps nothing of"
                " the vocals to refine; expected one that does, or a crossover_hz"
            )
        if self.start_sigma == 1:
            raise UserError(
                "start_sigma is 1, pure noise, which keeps nothing of the vocals to refine;"
                " expected less than 1, for example 0.3, or a crossover_hz"
            )


PAPER = SamplerSettings()
"""What a sampler takes that is chosen without a preset."""

PRESETS: Mapping[Preset, SamplerSettings] = {
    "fast": SamplerSettings(sampler="direct"),
    "balanced": SamplerSettings(sampler="ab2", steps=4, schedule=3.0, crossover_hz=3500.0),
    "best": SamplerSettings(sampler="ab2", steps=8, schedule=3.0, crossover_hz=2000.0),
}
"""What each costs and scores is measured in docs/separate.md."""

REFINE = SamplerSettings(sampler="ab2", steps=8, start_sigma=0.5)
"""How given vocals are worked over without a preset."""

DEFAULT_PRESET: Preset = "balanced"
"""Of a model whose config.json names none."""

_OF_THE_PRESET = tyro.conf.arg(help_behavior_hint="(default: the preset's)")


class SamplerOptions(TypedDict, total=False):
    """How to sample, as far as it is given and not None. The rest is as the preset has it."""

    preset: Annotated[Preset, tyro.conf.arg(help_behavior_hint="(default: the model's)")]
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
    """Noise levels are start_sigma (i/T)^schedule, 0.1 to 8: 1 is even, more puts more low."""

    temperature: Annotated[float, _OF_THE_PRESET]
    """Scale of the noise at the start: 1 draws a sample, lower is cautious; 0 to 2."""

    crossover_hz: Annotated[float, _OF_THE_PRESET]
    """Below it the direct estimate (or refine) is kept, above it is the sample; 0 is off."""

    ensemble: Annotated[int, _OF_THE_PRESET]
    """Mean of this many separations: seed, seed + 1, ...; as many times slower."""

    seed: Annotated[int, _OF_THE_PRESET]
    """Seed of the noise: the same seed gives the same vocals."""


def complete(
    options: SamplerOptions, default: Preset = DEFAULT_PRESET, *, refines: bool = False
) -> SamplerSettings:
    """Every setting, by the preset that the options name, or else by `default`, the model's.

    A sampler without a preset takes the paper's settings, vocals to start from (`refines`) without
    either take `REFINE`. Options of diffusion draw samples even if the model's preset draws none:
    then by `DEFAULT_PRESET`; and by the paper's sampler where the preset's has no use for one of
    them (eta, cutoff_hz).

    Raises:
      UserError: values out of range, or options that contradict each other.
      TypeError: an unknown option.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - SamplerOptions.__annotations__.keys():
        raise TypeError(f"unknown options of the sampler: {', '.join(sorted(unknown))}")
    preset, sampler = given.pop("preset", None), given.get("sampler")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"preset is {preset}; expected one of {', '.join(PRESETS)}")
    base = PAPER if preset is None and sampler is not None else PRESETS[preset or default]
    method = base.method if sampler is None else find_sampler(sampler)
    named = f"preset {preset or default}" if sampler is None else f"sampler {method.name}"
    draws = method.function is not None
    if preset is not None and draws != (base.method.function is not None):
        raise UserError(f"{named} contradicts preset {preset}; give one of them")
    if preset is None and sampler is None and (given or refines):
        if refines:
            base = REFINE
        elif not draws:
            base, named = PRESETS[DEFAULT_PRESET], f"preset {DEFAULT_PRESET}"
        if not base.method.uses.issuperset(given):
            base = dataclasses.replace(base, sampler=PAPER.sampler)
        method = base.method
    if useless := [name for name in given if name not in {"sampler", *method.uses}]:
        raise UserError(f"{named} makes no use of {', '.join(useless)}; leave one of them out")
    return dataclasses.replace(base, **given)
