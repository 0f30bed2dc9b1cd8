"""The sampler: DDIM from noise to vocals, with high-passed refinement noise."""

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


def ddim(
    velocity_fn: VelocityFn,
    noise: Waveform,
    key: PRNGKeyArray,
    *,
    num_steps: Count,
    eta: Scalar = 0.0,
    cutoff_hz: Scalar | None = None,
    sample_rate: float | int = 44100,
    noise_fn: Callable[[Int[Array, ""]], Waveform] | None = None,
    on_step: Callable[[int, np.ndarray], None] | None = None,
) -> Waveform:
    """Vocals from noise in `num_steps` calls of `velocity_fn`, by equations (5), (6), (8) to (10).

    Under `jax.jit`, `num_steps`, `eta` and `cutoff_hz` may be arguments of the compiled function:
    one program serves all their values. The state is float32 whatever `velocity_fn` computes in.

    Args:
      velocity_fn: (x, sigma) -> v, sigma a float32 scalar array: 1, (T - 1)/T, ..., 1/T.
      noise: x at sigma = 1, standard normal.
      key: for the refinement noise when there is no `noise_fn`.
      num_steps: T >= 1.
      eta: share of fresh noise in [0, 1]; 0 is deterministic DDIM, 1 is ancestral sampling.
      cutoff_hz: high-pass corner of the refinement noise, in [0, sample_rate / 2); None or 0 leaves
        it white.
      sample_rate: in Hz, for `cutoff_hz`.
      noise_fn: step -> white refinement noise shaped like `noise`; standard normal drawn from `key`
        by default. The step counts from 0.
      on_step: called on the host with (step, x0_hat) at each step, in order. Costs a copy to the
        host at each step, is for one device, and must not call JAX.

    Raises:
      UserError: `num_steps`, `eta` or `cutoff_hz` out of range, where they are not traced.
    """
    cutoff_hz = 0.0 if cutoff_hz is None else cutoff_hz
    _validate(num_steps, eta, cutoff_hz, sample_rate)
    num_steps = jnp.asarray(num_steps, jnp.int32)
    eta = jnp.asarray(eta, jnp.float32)
    cutoff_hz = jnp.asarray(cutoff_hz, jnp.float32)
    if noise_fn is None:

        def noise_fn(step: Int[Array, ""]) -> Waveform:
            return jax.random.normal(jax.random.fold_in(key, step), noise.shape, jnp.float32)

    def move(step: Array, x: Array) -> Array:
        # Whole numbers until the one rounding of the division: no error adds up along the grid.
        sigma_t = (num_steps - step).astype(jnp.float32) / num_steps.astype(jnp.float32)
        sigma_s = (num_steps - step - 1).astype(jnp.float32) / num_steps.astype(jnp.float32)
        v = velocity_fn(x, sigma_t).astype(jnp.float32)
        x0_hat = x0_from_velocity(x, v, sigma_t)
        noise_hat = noise_from_velocity(x, v, sigma_t)
        if on_step is not None:
            # Not jax.debug.callback: the compiler is free to drop or repeat that one.
            io_callback(
                lambda step, x0_hat: on_step(int(step), np.asarray(x0_hat)),
                None,
                step,
                x0_hat,
                ordered=True,
            )
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


def _validate(num_steps: Any, eta: Any, cutoff_hz: Any, sample_rate: float | int) -> None:
    """Refuse what is out of range among the values that are known now."""
    if not isinstance(num_steps, jax.core.Tracer):
        try:
            valid = operator.index(num_steps) >= 1
        except TypeError:
            valid = False
        if not valid:
            raise UserError(f"num_steps is {num_steps}; it must be a whole number of at least 1")
    if not isinstance(eta, jax.core.Tracer) and not 0 <= eta <= 1:
        raise UserError(f"eta is {eta}; it must be from 0 (no fresh noise) to 1")
    if not isinstance(cutoff_hz, jax.core.Tracer) and not 0 <= cutoff_hz < sample_rate / 2:
        raise UserError(
            f"cutoff_hz is {cutoff_hz}; it must be from 0 (no filter) to below half the sample "
            f"rate, {sample_rate / 2:g} Hz"
        )
