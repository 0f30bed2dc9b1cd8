"""How to sample: the options of separation that change no compiled program. Imports no JAX."""

import dataclasses
from typing import Literal

from diffsep_jax.errors import UserError

# Steps are counted in int32, and each refreshes noise of its own.
MAX_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """Runtime options of the sampler.

    Raises:
      UserError: a value out of its range.
    """

    sampler: Literal["ddim", "direct"] = "ddim"
    """ddim: the diffusion sampler; direct: the conditioner's own estimate, in one pass."""

    steps: int = 50
    """Network calls of ddim for each chunk, 1 to 1,000,000."""

    eta: float = 0.4
    """Share of fresh noise in each step of ddim: 0 (none) to 1."""

    cutoff_hz: float | None = 5000.0
    """Corner in Hz of the high-pass filter on the fresh noise; None or 0 leaves it white."""

    seed: int = 0
    """Seed of the noise: the same seed gives the same vocals."""

    def __post_init__(self) -> None:
        if self.sampler not in ("ddim", "direct"):
            raise UserError(f"sampler {self.sampler!r}, expected 'ddim' or 'direct'")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps {self.steps}, expected 1 to {MAX_STEPS}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta {self.eta}, expected 0 to 1")
        if self.cutoff_hz is not None and not 0 <= self.cutoff_hz < float("inf"):
            raise UserError(f"cutoff_hz {self.cutoff_hz}, expected None or 0 Hz and more")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed {self.seed}, expected 0 to 2^32 - 1")
