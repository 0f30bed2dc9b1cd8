"""The samplers: from noise, or from a noisy guess, to vocals in a number of network calls.

Both take T steps down from `start_sigma` to 0: the network is called at the levels
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
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import io_callback
from jaxtyping import Float, Int, PRNGKeyArray

from diffsep_jax.diffusion import alpha_beta, noise_from_velocity, x0_from_velocity
from diffsep_jax.errors import UserError
from diffsep_jax.noise import high_pass
from diffsep_jax.typing import Count, Scalar, VelocityFn, Waveform

# (step, x0_hat), on the host.
OnStep = Callable[[int, np.ndarray], None]


def ddim(
    velocity_fn: VelocityFn,
    noise: Waveform,
    key: PRNGKeyArray,
    *,
    num_steps: Count,
    eta: Scalar = 0.0,
    cutoff_hz: Scalar | None = None,
    sample_rate: float | int = 44100,
    start_sigma: Scalar = 1.0,
    schedule: Scalar = 1.0,
    noise_fn: Callable[[Int[Array, ""]], Waveform] | None = None,
    on_step: OnStep | None = None,
) -> Waveform:
    """Vocals from noise in `num_steps` calls of `velocity_fn`, by equations (5), (6), (8) to (10).

    Under `jax.jit`, `num_steps`, `eta`, `cutoff_hz`, `start_sigma` and `schedule` may be arguments
    of the compiled function: one program serves all their values. The state is float32 whatever
    `velocity_fn` computes in.

    Args:
      velocity_fn: (x, sigma) -> v, sigma a float32 scalar array.
      noise: x at `start_sigma`; standard normal at 1.
      key: for the refinement noise when there is no `noise_fn`.
      num_steps: T >= 1.
      eta: share of fresh noise in [0, 1]; 0 is deterministic DDIM, 1 is ancestral sampling.
      cutoff_hz: high-pass corner of the refinement noise, in [0, sample_rate / 2); None or 0 leaves
        it white.
      sample_rate: in Hz, for `cutoff_hz`.
      start_sigma: noise level of `noise`, in (0, 1].
      schedule: p of the levels, above 0.
      noise_fn: step -> white refinement noise shaped like `noise`; standard normal drawn from `key`
        by default. The step counts from 0.
      on_step: called on the host with (step, x0_hat) at each step, in order. Costs a copy to the
        host at each step, is for one device, and must not call JAX.

    Raises:
      UserError: `num_steps`, `eta`, `cutoff_hz`, `start_sigma` or `schedule` out of range, where
        they are not traced.
    """
    cutoff_hz = 0.0 if cutoff_hz is None else cutoff_hz
    _validate_grid(num_steps, start_sigma, schedule)
    _validate_refinement(eta, cutoff_hz, sample_rate)
    num_steps = jnp.asarray(num_steps, jnp.int32)
    eta = jnp.asarray(eta, jnp.float32)
    cutoff_hz = jnp.asarray(cutoff_hz, jnp.float32)
    if noise_fn is None:

        def noise_fn(step: Int[Array, ""]) -> Waveform:
            return jax.random.normal(jax.random.fold_in(key, step), noise.shape, jnp.float32)

    def move(step: Array, x: Array) -> Array:
        sigma_t, sigma_s = (_level(step + i, num_steps, start_sigma, schedule) for i in (0, 1))
        v = velocity_fn(x, sigma_t).astype(jnp.float32)
        x0_hat = x0_from_velocity(x, v, sigma_t)
        noise_hat = noise_from_velocity(x, v, sigma_t)
        _report(on_step, step, x0_hat)
        alpha, beta, delta = move_coefficients(sigma_t, sigma_s, eta)
        is_last = step == num_steps - 1
        refinement = jax.lax.cond(
            (eta > 0) & ~is_last,
            lambda: high_pass(noise_fn(step), cutoff_hz, sample_rate),
            lambda: jnp.zeros_like(x),
        )
        x_s = alpha * x0_hat + beta * noise_hat + delta * refinement  # equation (10)
        # At sigma = 0 the two are equal, up to what a device makes of sin(pi/2).
        return jnp.where(is_last, x0_hat, x_s)

    return jax.lax.fori_loop(jnp.int32(0), num_steps, move, noise.astype(jnp.float32))


def adams_bashforth_2(
    velocity_fn: VelocityFn,
    noise: Waveform,
    key: PRNGKeyArray,
    *,
    num_steps: Count,
    start_sigma: Scalar = 1.0,
    schedule: Scalar = 1.0,
    on_step: OnStep | None = None,
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
      velocity_fn, noise, num_steps, start_sigma, schedule, on_step: as in `ddim`.
      key: not used; the samplers are called alike.

    Raises:
      UserError: `num_steps`, `start_sigma` or `schedule` out of range, where they are not traced.
    """
    del key
    _validate_grid(num_steps, start_sigma, schedule)
    num_steps = jnp.asarray(num_steps, jnp.int32)

    def move(step: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        x, x0_hat_last = carried
        sigma_t, sigma_s = (_level(step + i, num_steps, start_sigma, schedule) for i in (0, 1))
        v = velocity_fn(x, sigma_t).astype(jnp.float32)
        x0_hat = x0_from_velocity(x, v, sigma_t)
        _report(on_step, step, x0_hat)
        share = jnp.where(step == 0, 0.0, 0.5)
        middle = x0_hat + share * (x0_hat - x0_hat_last)
        _, beta_t = alpha_beta(sigma_t)
        _, beta_s = alpha_beta(sigma_s)
        _, sin_difference = alpha_beta(sigma_t - sigma_s)
        x_s = (beta_s * x + sin_difference * middle) / beta_t
        return jnp.where(step == num_steps - 1, x0_hat, x_s), x0_hat

    x = noise.astype(jnp.float32)
    vocals, _ = jax.lax.fori_loop(jnp.int32(0), num_steps, move, (x, jnp.zeros_like(x)))
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


def _level(
    step: Array, num_steps: Array, start_sigma: Scalar, schedule: Scalar
) -> Float[Array, ""]:
    """sigma before the step; `num_steps` of them lead from `start_sigma` to 0."""
    # Whole numbers until the one rounding of the division: no error adds up along the grid.
    level = (num_steps - step).astype(jnp.float32) / num_steps.astype(jnp.float32)
    power = jnp.asarray(schedule, jnp.float32)
    level = jnp.where(power == 1, level, level**power)
    return jnp.asarray(start_sigma, jnp.float32) * level


def _report(on_step: OnStep | None, step: Array, x0_hat: Waveform) -> None:
    if on_step is not None:
        # Not jax.debug.callback: the compiler is free to drop or repeat that one.
        io_callback(
            lambda step, x0_hat: on_step(int(step), np.asarray(x0_hat)),
            None,
            step,
            x0_hat,
            ordered=True,
        )


def _validate_grid(num_steps: Any, start_sigma: Any, schedule: Any) -> None:
    """Refuse what is out of range among the values that are known now."""
    if not isinstance(num_steps, jax.core.Tracer):
        try:
            valid = operator.index(num_steps) >= 1
        except TypeError:
            valid = False
        if not valid:
            raise UserError(f"num_steps is {num_steps}; it must be a whole number of at least 1")
    if not isinstance(start_sigma, jax.core.Tracer) and not 0 < start_sigma <= 1:
        raise UserError(
            f"start_sigma is {start_sigma}; it must be above 0 (the guess), up to 1 (noise)"
        )
    if not isinstance(schedule, jax.core.Tracer) and not 0 < schedule < jnp.inf:
        raise UserError(f"schedule is {schedule}; it must be a finite number above 0")


def _validate_refinement(eta: Any, cutoff_hz: Any, sample_rate: float | int) -> None:
    """Refuse what is out of range among the values that are known now."""
    if not isinstance(eta, jax.core.Tracer) and not 0 <= eta <= 1:
        raise UserError(f"eta is {eta}; it must be from 0 (no fresh noise) to 1")
    if not isinstance(cutoff_hz, jax.core.Tracer) and not 0 <= cutoff_hz < sample_rate / 2:
        raise UserError(
            f"cutoff_hz is {cutoff_hz}; it must be from 0 (no filter) to below half the sample "
            f"rate, {sample_rate / 2:g} Hz"
        )
