"""The samplers: from noise, or from a noisy guess, to vocals in a number of network calls.

All of them take T steps down from `start_sigma` to 0: the network is called at the levels
start_sigma (i/T)^p, i = T, T - 1, ..., 1. The schedule p is 1 in the paper; above 1 (ours) more of
the levels are low, which is where quiet sounds are decided. From x at level t and the network's
x0_hat there, the deterministic move to level s is, by equations (5), (6) and (10) at eta = 0,

    x_s = alpha_s x0_hat + beta_s eps_hat = (beta_s x_t + sin(pi/2 (t - s)) x0_hat) / beta_t

`ddim` makes this move and replaces part of eps_hat by fresh noise. `adams_bashforth_2` makes it
with a better x0_hat, extrapolated from this call's and the last one's.

Started at 1, x is pure noise. Started lower, it is `diffusion.diffuse(guess, noise, start_sigma)`:
what lies below that level of noise is sampled again, the rest of the guess stays. At start_sigma
near 0 the guess comes back.

`SETTINGS` lists the settings and their ranges, `SAMPLERS` at the end of this file the samplers. The
command line, its help, sweeps and exports read both; `register_sampler` adds to `SAMPLERS`.
"""

import dataclasses
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from diffsep_jax.diffusion import alpha_beta, noise_from_velocity, x0_from_velocity
from diffsep_jax.errors import UserError
from diffsep_jax.noise import high_pass
from diffsep_jax.typing import Count, Scalar, VelocityFn, Waveform

NoiseFn = Callable[[Int[Array, ""]], Waveform]
"""(step, counted from 0) -> white noise in the shape of the chunks."""


class Setting(NamedTuple):
    """The type of a setting in a compiled program, and its range, both ends included."""

    dtype: type[np.generic]
    low: float
    high: float


STEP_SETTINGS = {
    "steps": Setting(np.int32, 1, 1_000_000),  # each refreshes noise of its own
    "eta": Setting(np.float32, 0, 1),
    "cutoff_hz": Setting(np.float32, 0, math.inf),
    # Noise at -116 dB: lower levels cannot be heard, and float32 would divide 0 by 0.
    "start_sigma": Setting(np.float32, 1e-6, 1),
    # Beyond these, levels of float32 coincide at 1 or at 0.
    "schedule": Setting(np.float32, 0.1, 8),
}
"""Settings that a sampler's function may take, by these names."""

DRAW_SETTINGS = {
    "seed": Setting(np.uint32, 0, 2**32 - 1),
    "temperature": Setting(np.float32, 0, 2),
    "crossover_hz": Setting(np.float32, 0, math.inf),
    "ensemble": Setting(np.int32, 1, 10_000),
}
"""Settings applied outside that function: to its initial noise and to its samples."""

SETTINGS = STEP_SETTINGS | DRAW_SETTINGS


def check_settings(**values: Any) -> None:
    """Raises UserError for a value out of its range. Traced values are accepted unchecked."""
    for name, value in values.items():
        dtype, low, high = SETTINGS[name]
        if isinstance(value, jax.core.Tracer):
            continue
        if np.issubdtype(dtype, np.integer):
            try:
                value = operator.index(value)
            except TypeError:
                raise UserError(f"{name} is {value!r}; expected a whole number") from None
        if not low <= value <= high:
            raise UserError(f"{name} is {value}; expected {low} to {high}")


def check_frequency(name: str, hertz: Any, sample_rate: float | int) -> None:
    """Raises UserError unless `hertz` is below half the sample rate; accepts traced values."""
    if not isinstance(hertz, jax.core.Tracer) and hertz >= sample_rate / 2:
        raise UserError(
            f"{name} is {hertz}; expected less than {sample_rate / 2:g}, half the sample rate of"
            f" {sample_rate:g} Hz"
        )


def ddim(
    velocity_fn: VelocityFn,
    noise: Waveform,
    *,
    steps: Count,
    eta: Scalar = 0.0,
    cutoff_hz: Scalar = 0.0,
    start_sigma: Scalar = 1.0,
    schedule: Scalar = 1.0,
    noise_fn: NoiseFn | None = None,
    sample_rate: float | int = 44100,
) -> Waveform:
    """Vocals from noise in `steps` calls of `velocity_fn`, by equations (5), (6), (8) to (10).

    Under `jax.jit`, `steps`, `eta`, `cutoff_hz`, `start_sigma` and `schedule` may be arguments
    of the compiled function: one program serves all their values. The state is float32 whatever
    `velocity_fn` computes in.

    Args:
      velocity_fn: (x, sigma) -> v, sigma a float32 scalar array.
      noise: x at `start_sigma`; standard normal at 1.
      steps: T >= 1.
      eta: share of fresh noise in [0, 1]; 0 is deterministic DDIM, 1 is ancestral sampling.
      cutoff_hz: high-pass corner of the fresh noise, in [0, sample_rate / 2); 0 leaves it white.
      start_sigma: noise level of `noise`, up to 1.
      schedule: p of the levels.
      noise_fn: the fresh noise; needed unless `eta` is 0.
      sample_rate: sample rate in Hz, for `cutoff_hz`.

    Raises:
      UserError: a value that is not traced and outside its range in `SETTINGS`; no `noise_fn` where
        `eta` is not 0.
    """
    check_settings(
        steps=steps, eta=eta, cutoff_hz=cutoff_hz, start_sigma=start_sigma, schedule=schedule
    )
    check_frequency("cutoff_hz", cutoff_hz, sample_rate)
    if noise_fn is None and (isinstance(eta, jax.core.Tracer) or eta != 0):
        raise UserError(f"noise_fn is None and eta is {eta}; expected a noise_fn, or an eta of 0")
    steps = jnp.asarray(steps, jnp.int32)
    eta = jnp.asarray(eta, jnp.float32)
    cutoff_hz = jnp.asarray(cutoff_hz, jnp.float32)

    def move(step: Array, x: Array) -> Array:
        sigma_t, sigma_s = (_level(step + i, steps, start_sigma, schedule) for i in (0, 1))
        v = velocity_fn(x, sigma_t).astype(jnp.float32)
        x0_hat = x0_from_velocity(x, v, sigma_t)
        noise_hat = noise_from_velocity(x, v, sigma_t)
        alpha, beta, delta = move_coefficients(sigma_t, sigma_s, eta)
        is_last = step == steps - 1
        x_s = alpha * x0_hat + beta * noise_hat  # equation (10)
        if noise_fn is not None:
            x_s += delta * jax.lax.cond(
                (eta > 0) & ~is_last,
                lambda: high_pass(noise_fn(step), cutoff_hz, sample_rate),
                lambda: jnp.zeros_like(x),
            )
        # At sigma = 0 the two are equal, up to the device's rounding of sin(pi/2).
        return jnp.where(is_last, x0_hat, x_s)

    return jax.lax.fori_loop(jnp.int32(0), steps, move, noise.astype(jnp.float32))


def adams_bashforth_2(
    velocity_fn: VelocityFn,
    noise: Waveform,
    *,
    steps: Count,
    start_sigma: Scalar = 1.0,
    schedule: Scalar = 1.0,
) -> Waveform:
    """Vocals from noise by a method of second order, for few steps. Deterministic (ours).

    The move in the module docstring assumes a constant x0_hat. Here x0_hat is smooth in sigma and
    is taken in the middle of the step, extrapolated from the last two calls:

        D = x0_hat + (x0_hat - x0_hat_last) / 2

    which is the second-order Adams-Bashforth method in the angle. The factor 1/2 is exact for equal
    steps. It is kept on other grids, where with few steps it preserves more of a Gaussian's
    deviation than the exact factor. The first step has no earlier call and is DDIM's; the last
    returns x0_hat.

    Args:
      velocity_fn, noise, steps, start_sigma, schedule: as in `ddim`. Has a gradient if `steps` is
        not traced.

    Raises:
      UserError: a value that is not traced and outside its range in `SETTINGS`.
    """
    check_settings(steps=steps, start_sigma=start_sigma, schedule=schedule)
    num_calls, steps = steps, jnp.asarray(steps, jnp.int32)

    def move(step: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        x, x0_hat_last = carried
        sigma_t, sigma_s = (_level(step + i, steps, start_sigma, schedule) for i in (0, 1))
        v = velocity_fn(x, sigma_t).astype(jnp.float32)
        x0_hat = x0_from_velocity(x, v, sigma_t)
        share = jnp.where(step == 0, 0.0, 0.5)
        middle = x0_hat + share * (x0_hat - x0_hat_last)
        _, beta_t = alpha_beta(sigma_t)
        _, beta_s = alpha_beta(sigma_s)
        _, sin_difference = alpha_beta(sigma_t - sigma_s)
        x_s = (beta_s * x + sin_difference * middle) / beta_t
        return jnp.where(step == steps - 1, x0_hat, x_s), x0_hat

    x = noise.astype(jnp.float32)
    vocals, _ = jax.lax.fori_loop(0, num_calls, move, (x, jnp.zeros_like(x)))
    return vocals


def move_coefficients(
    sigma_t: Scalar | Float[Array, "*grid"],
    sigma_s: Scalar | Float[Array, "*grid"],
    eta: Scalar | Float[Array, "*grid"],
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"], Float[Array, "*grid"]]:
    """alpha_s, beta' and delta of a move from `sigma_t` to a lower `sigma_s`: (8) and (9).

    Elementwise, without the differences of nearly equal numbers that the equations hold:

        1 - alpha_t^2 / alpha_s^2 = sin(pi/2 (t - s)) sin(pi/2 (t + s)) / alpha_s^2
        beta'^2 = beta_s^2 (1 - eta^2 + eta^2 q^2),   q = (alpha_t beta_s) / (alpha_s beta_t)

    The second is (8) put into (9), as 1 - alpha_t^2 / alpha_s^2 = beta_t^2 (1 - q^2). Every factor
    is >= 0, so no root is of a negative number.
    """
    sigma_t = jnp.asarray(sigma_t, jnp.float32)
    sigma_s = jnp.asarray(sigma_s, jnp.float32)
    eta = jnp.asarray(eta, jnp.float32)
    alpha_t, beta_t = alpha_beta(sigma_t)
    alpha_s, beta_s = alpha_beta(sigma_s)
    # sin(pi/2 u) = sin(pi/2 (2 - u)): the smaller argument has the smaller rounding error.
    total = jnp.minimum(sigma_t + sigma_s, (1 - sigma_t) + (1 - sigma_s))
    _, sin_difference = alpha_beta(sigma_t - sigma_s)
    _, sin_sum = alpha_beta(total)
    delta = eta * (beta_s / beta_t) * jnp.sqrt(sin_difference * sin_sum) / alpha_s
    q = (alpha_t * beta_s) / (alpha_s * beta_t)
    beta_prime = beta_s * jnp.sqrt((1 - eta) * (1 + eta) + (eta * q) ** 2)
    return alpha_s, beta_prime, delta


def _level(step: Array, steps: Array, start_sigma: Scalar, schedule: Scalar) -> Float[Array, ""]:
    """sigma before the step; `steps` of them lead from `start_sigma` to 0."""
    # Whole numbers until the one rounding of the division: no error adds up along the grid.
    level = (steps - step).astype(jnp.float32) / steps.astype(jnp.float32)
    power = jnp.asarray(schedule, jnp.float32)
    level = jnp.where(power == 1, level, level**power)
    return jnp.asarray(start_sigma, jnp.float32) * level


_OFFERED = STEP_SETTINGS.keys() | {"noise_fn", "sample_rate"}


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A method of sampling; see `register_sampler`. Samplers with the same function are equal.

    Attributes:
      name: the name by which it is chosen.
      function: None is the direct estimate, which draws nothing: `inference.engine` then returns
        that of the conditioner.
      help: one line.
    """

    name: str = dataclasses.field(compare=False)
    function: Callable[..., Waveform] | None
    help: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.keywords if name not in _OFFERED]:
            raise UserError(
                f"sampler {self.name} has the parameters {', '.join(unknown)}; expected, after"
                f" velocity_fn and noise, some of {', '.join(sorted(_OFFERED))}"
            )

    @property
    def keywords(self) -> list[str]:
        """The function's parameters after the first two, except those with defaults of its own."""
        if self.function is None:
            return []
        parameters = list(inspect.signature(self.function).parameters.values())[2:]
        named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        bound = getattr(self.function, "keywords", {})  # of a functools.partial
        return [
            p.name
            for p in named
            if p.name not in bound and (p.name in _OFFERED or p.default is p.empty)
        ]

    @property
    def uses(self) -> frozenset[str]:
        """Names of the settings that have an effect."""
        if self.function is None:
            return frozenset()
        return frozenset(STEP_SETTINGS.keys() & {*self.keywords} | DRAW_SETTINGS.keys())

    def __call__(
        self,
        velocity_fn: VelocityFn,
        noise: Waveform,
        values: Mapping[str, Scalar],
        *,
        noise_fn: NoiseFn,
        sample_rate: int,
    ) -> Waveform:
        """Calls the function with those of the values and keywords that it takes."""
        assert self.function is not None
        offered = {**values, "noise_fn": noise_fn, "sample_rate": sample_rate}
        return self.function(velocity_fn, noise, **{name: offered[name] for name in self.keywords})


SAMPLERS: dict[str, Sampler] = {}
"""All samplers by name."""


def register_sampler(name: str, function: Callable[..., Waveform] | None, *, help: str) -> Sampler:
    """Adds a sampler, to be chosen by its name.

    Args:
      name: a name that no other sampler has.
      function: (velocity_fn, noise, ...) -> vocals, as `ddim`. Its further parameters say what it
        uses: some of `STEP_SETTINGS`, which are traced scalars, `noise_fn` and `sample_rate`. All
        fresh noise must come from `noise_fn`, which is the same where chunks overlap.
      help: one line for `diffsep --help-all`.

    Raises:
      UserError: the name is taken, or the function has other parameters.
    """
    if name in SAMPLERS:
        raise UserError(f"sampler is {name}; expected a name that is not taken")
    SAMPLERS[name] = Sampler(name, function, help)
    return SAMPLERS[name]


def find_sampler(sampler: str | Callable[..., Waveform]) -> Sampler:
    """A sampler by its name, in any case, or of a function that `register_sampler` would take.

    Raises:
      UserError: an unknown name, or a function that cannot be a sampler.
    """
    if not isinstance(sampler, str):
        if not callable(sampler):
            raise UserError(f"sampler is {sampler!r}; expected a name or a function")
        return Sampler(getattr(sampler, "__name__", "function"), sampler)
    for name, each in SAMPLERS.items():
        if name.casefold() == sampler.casefold():
            return each
    raise UserError(f"sampler is {sampler}; expected one of {', '.join(SAMPLERS)}")


register_sampler("ddim", ddim, help="the paper's")
register_sampler("ab2", adams_bashforth_2, help="second order, for few steps")
register_sampler("direct", None, help="one pass without diffusion")
