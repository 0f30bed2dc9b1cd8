"""How to sample: the options of separation that change no compiled program. Imports no JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from diffsep_jax.errors import UserError

# Steps are counted in int32, and each refreshes noise of its own.
MAX_STEPS = 1_000_000

MAX_ENSEMBLE = 10_000

# Beyond these, levels fall together in float32, at 1 or at 0.
MIN_SCHEDULE, MAX_SCHEDULE = 0.1, 8

# Noise at -116 dB: lower levels change nothing that can be heard, and the smallest numbers of
# float32 would divide 0 by 0.
MIN_START_SIGMA = 1e-6

Sampler = Literal["ddim", "ab2", "direct"]
Preset = Literal["fast", "balanced", "best"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """Every runtime option of the sampler; by default the paper's. See `SamplerOptions`.

    Raises:
      UserError: a value out of its range.
    """

    sampler: Sampler = "ddim"
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
        if self.sampler not in get_args(Sampler):
            raise UserError(f"sampler {self.sampler!r}, expected 'ddim', 'ab2' or 'direct'")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps {self.steps}, expected 1 to {MAX_STEPS}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta {self.eta}, expected 0 to 1")
        if not 0 <= self.cutoff_hz < float("inf"):
            raise UserError(f"cutoff_hz {self.cutoff_hz}, expected 0 (white noise) or more Hz")
        if not MIN_START_SIGMA <= self.start_sigma <= 1:
            raise UserError(f"start_sigma {self.start_sigma}, expected {MIN_START_SIGMA:g} to 1")
        if not MIN_SCHEDULE <= self.schedule <= MAX_SCHEDULE:
            raise UserError(f"schedule {self.schedule}, expected {MIN_SCHEDULE} to {MAX_SCHEDULE}")
        if not 0 <= self.temperature <= 2:
            raise UserError(f"temperature {self.temperature}, expected 0 to 2")
        if not 0 <= self.crossover_hz < float("inf"):
            raise UserError(f"crossover_hz {self.crossover_hz}, expected 0 (off) Hz or more")
        if not 1 <= self.ensemble <= MAX_ENSEMBLE:
            raise UserError(f"ensemble {self.ensemble}, expected 1 to {MAX_ENSEMBLE}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed {self.seed}, expected 0 to 2^32 - 1")

    def check_refines(self) -> None:
        """UserError unless these settings make use of a file to start from."""
        if self.sampler == "direct":
            raise UserError(
                "sampler direct, also of preset fast, starts from no file; to refine one, take ddim"
                " or ab2"
            )
        if self.start_sigma == 1 and not self.crossover_hz:
            raise UserError(
                "start_sigma 1 is pure noise and keeps nothing of the file to refine; "
                "expected less than 1, for example 0.3, or a crossover_hz"
            )


PRESETS: Mapping[str, SamplerSettings] = {
    "fast": SamplerSettings(sampler="direct"),
    "balanced": SamplerSettings(steps=5, start_sigma=0.5),
    "best": SamplerSettings(steps=10, start_sigma=0.5, ensemble=4),
}
"""What each costs and scores is measured in docs/separate.md."""

USELESS: Mapping[Sampler, frozenset[str]] = {
    "ddim": frozenset(),
    "ab2": frozenset({"eta", "cutoff_hz"}),
    "direct": frozenset(SamplerSettings.__dataclass_fields__) - {"sampler", "seed"},
}
"""Options that play no part with a sampler."""

DEFAULT_PRESET: Preset = "balanced"
"""Of a model whose config.json names none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """How to sample. What is not given (None) is as the preset has it.

    Without a preset it is the model's own; with a sampler and no preset, the paper's settings.

    Raises:
      UserError: an unknown preset or sampler.
    """

    preset: Preset | None = None
    """fast, balanced or best, see docs/separate.md; options given with it take precedence."""

    sampler: Sampler | None = None
    """ddim: the paper's; ab2: second order, for few steps; direct: one pass without diffusion."""

    steps: int | None = None
    """Network calls of ddim and ab2 for each chunk, 1 to 1,000,000."""

    eta: float | None = None
    """Share of fresh noise in each step of ddim: 0 (none) to 1."""

    cutoff_hz: float | None = None
    """Corner in Hz of the high-pass filter on the fresh noise; 0, not None, leaves it white."""

    start_sigma: float | None = None
    """Noise at the start: 1 is all noise; lower keeps more of the direct estimate, or of refine."""

    schedule: float | None = None
    """Noise levels are start_sigma (i/T)^schedule, 0.1 to 8: 1 is even, more puts more low."""

    temperature: float | None = None
    """Scale of the noise at the start: 1 draws a sample, lower is cautious; 0 to 2."""

    crossover_hz: float | None = None
    """Below it the direct estimate (or refine) is kept, above it is the sample; 0 is off."""

    ensemble: int | None = None
    """Mean of this many separations by ddim or ab2: seed, seed + 1, ...; as many times slower."""

    seed: int | None = None
    """Seed of the noise: the same seed gives the same vocals."""

    def __post_init__(self) -> None:
        for name, known in (("preset", tuple(PRESETS)), ("sampler", get_args(Sampler))):
            if getattr(self, name) not in (None, *known):
                raise UserError(f"{name} {getattr(self, name)!r}, expected {', '.join(known)}")

    def settings(
        self, default: Preset = DEFAULT_PRESET, *, refines: bool = False
    ) -> SamplerSettings:
        """Every option, by the preset that is asked for, or else the model's.

        Options of diffusion, and vocals to start from (`refines`), draw samples whatever the
        model's preset: by `DEFAULT_PRESET` if that draws none, by ddim for options of ddim alone.

        Raises UserError for values out of range, and for options that contradict each other.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        preset = given.pop("preset", None)
        if preset is None and self.sampler is not None:
            base = SamplerSettings()
        else:
            base = PRESETS[preset or default]
        sampler, named = base.sampler, f"preset {preset}"
        if self.sampler is not None:
            sampler, named = self.sampler, f"sampler {self.sampler}"
            if preset is not None and (sampler == "direct") != (base.sampler == "direct"):
                raise UserError(f"{named} contradicts preset {preset}; give one of them")
        useless = given.keys() & USELESS[sampler]
        refines_anyhow = refines and sampler == "direct"
        if preset is None and self.sampler is None and (useless or refines_anyhow):
            base = PRESETS[DEFAULT_PRESET]
            if given.keys() & USELESS[base.sampler]:
                base = dataclasses.replace(base, sampler="ddim")
        elif useless:
            told = ", ".join(name for name in given if name in useless)
            raise UserError(f"{named} makes no use of {told}; leave one of them out")
        return dataclasses.replace(base, **given)
