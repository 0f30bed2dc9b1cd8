"""The samplers: from noise, or from a noisy guess, to vocals in a number of network calls.

All of them take T steps down from `start_sigma` to 0: the network is called at the levels
start_sigma (i/T)^p, i = T, T - 1, ..., 1. The schedule p is 1 in the paper; above 1 (ours) more of
the levels are low, where quiet sounds are decided. From x at level t and the network's x0_hat
there, a deterministic move to level s without further knowledge is, by equations (5), (6) and (10)
at eta = 0,

    x_s = alpha_s x0_hat + beta_s eps_hat = (beta_s x_t + sin(pi/2 (t - s)) x0_hat) / beta_t

`ddim` makes this move and replaces part of eps_hat by fresh noise. `adams_bashforth_2` puts into
it a better x0_hat, extrapolated from this call's and the last one's.

Started at 1, x is pure noise. Started lower, it is `diffusion.diffuse(guess, noise, start_sigma)`:
what the guess holds under that level of noise is drawn anew, the rest stays. At start_sigma near 0
the guess comes back.

`SAMPLERS` at the end of this file is the table that the command line, its help, sweeps and exports
read. `register_sampler` adds to it.
"""

import dataclasses
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from diffsep_jax.diffusion import alpha_beta, noise_from_velocity, x0_from_velocity
from diffsep_jax.errors import UserError
from diffsep_jax.noise import high_pass
from diffsep_jax.typing import Count, Scalar, VelocityFn, Waveform

NoiseFn = Callable[[Int[Array, ""]], Waveform]
"""Step, from 0 -> white noise in the shape of the chunks."""


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
      start_sigma: noise level of `noise`, in (0, 1].
      schedule: p of the levels, above 0.
      noise_fn: the fresh noise; needed unless `eta` is 0.
      sample_rate: in Hz, for `cutoff_hz`.

    Raises:
      UserError: a value out of range, where it is not traced; no `noise_fn` where `eta` is not 0.
    """
    _validate_grid(steps, start_sigma, schedule)
    _validate_refinement(eta, cutoff_hz, sample_rate)
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
        # At sigma = 0 the two are equal, up to what a device makes of sin(pi/2).
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

    The flow is the rotation at the head of this file, about an x0_hat that is smooth in sigma. The
    move puts into it x0_hat in the middle of the step, by the last two calls:

        D = x0_hat + (x0_hat - x0_hat_last) / 2

    which is Adams and Bashforth's method of second order in the angle. The share of a half is that
    of equal steps, and is kept on other grids: with few steps it leaves more of a Gaussian's
    deviation than the share that fits theirs. The first step has none before it and is DDIM's; the
    last returns x0_hat.

    Args:
      velocity_fn, noise, steps, start_sigma, schedule: as in `ddim`.

    Raises:
      UserError: `steps`, `start_sigma` or `schedule` out of range, where they are not traced.
    """
    _validate_grid(steps, start_sigma, schedule)
    steps = jnp.asarray(steps, jnp.int32)

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
    vocals, _ = jax.lax.fori_loop(jnp.int32(0), steps, move, (x, jnp.zeros_like(x)))
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


def _validate_grid(steps: Any, start_sigma: Any, schedule: Any) -> None:
    """Refuse what is out of range among the values that are known now."""
    if not isinstance(steps, jax.core.Tracer):
        try:
            valid = operator.index(steps) >= 1
        except TypeError:
            valid = False
        if not valid:
            raise UserError(f"steps is {steps}; expected a whole number of at least 1")
    if not isinstance(start_sigma, jax.core.Tracer) and not 0 < start_sigma <= 1:
        raise UserError(
            f"start_sigma is {start_sigma}; expected more than 0 (the guess), up to 1 (noise)"
        )
    if not isinstance(schedule, jax.core.Tracer) and not 0 < schedule < jnp.inf:
        raise UserError(f"schedule is {schedule}; expected a finite number above 0")


def _validate_refinement(eta: Any, cutoff_hz: Any, sample_rate: float | int) -> None:
    """Refuse what is out of range among the values that are known now."""
    if not isinstance(eta, jax.core.Tracer) and not 0 <= eta <= 1:
        raise UserError(f"eta is {eta}; expected 0 (no fresh noise) to 1")
    if not isinstance(cutoff_hz, jax.core.Tracer) and not 0 <= cutoff_hz < sample_rate / 2:
        raise UserError(
            f"cutoff_hz is {cutoff_hz}; expected 0 (no filter) to below half the sample rate,"
            f" {sample_rate / 2:g} Hz"
        )


STEP_SETTINGS = frozenset({"steps", "eta", "cutoff_hz", "start_sigma", "schedule"})
"""Settings that a sampler's function may take, by these names."""

DRAW_SETTINGS = frozenset({"seed", "temperature", "crossover_hz", "ensemble"})
"""Settings of everything around that function: its noise, and what becomes of its draws."""

_OFFERED = STEP_SETTINGS | {"noise_fn", "sample_rate"}


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A way to get vocals from a conditioned network; see `register_sampler`.

    Attributes:
      name: by which it is chosen.
      function: None is the direct estimate, for which nothing is drawn. Samplers of one function
        are equal.
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
        """The function's parameters after the first two, but for defaults of its own."""
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
        """Names of the settings that play a part."""
        if self.function is None:
            return frozenset()
        return STEP_SETTINGS.intersection(self.keywords) | DRAW_SETTINGS

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
      name: not one of another sampler.
      function: (velocity_fn, noise, ...) -> vocals, as `ddim`. Its further parameters say what it
        uses: of the settings `steps`, `eta`, `cutoff_hz`, `start_sigma` and `schedule`, which are
        traced scalars, and of `noise_fn` and `sample_rate`. Draw fresh noise by `noise_fn` alone:
        where chunks overlap it is the same.
      help: one line for `diffsep separate --help`.

    Raises:
      UserError: the name is taken, or the function has other parameters.
    """
    if name in SAMPLERS:
        raise UserError(f"sampler {name}: the name is taken; expected one that is not")
    SAMPLERS[name] = Sampler(name, function, help)
    return SAMPLERS[name]


def find_sampler(sampler: str | Callable[..., Waveform]) -> Sampler:
    """A sampler by its name, or of a function that `register_sampler` would take.

    Raises:
      UserError: an unknown name, or a function that cannot be a sampler.
    """
    if not isinstance(sampler, str):
        if not callable(sampler):
            raise UserError(f"sampler is {sampler!r}; expected a name or a function")
        return Sampler(getattr(sampler, "__name__", "function"), sampler)
    if sampler not in SAMPLERS:
        raise UserError(f"sampler is {sampler}; expected one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler]


register_sampler("ddim", ddim, help="the paper's")
register_sampler("ab2", adams_bashforth_2, help="second order, for few steps")
register_sampler("direct", None, help="one pass without diffusion")
