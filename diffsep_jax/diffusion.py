"""The diffusion process: vocals to noise along a quarter circle, and back from a velocity.

Numbers in parentheses are the equations of Plaja-Roglans et al., WASPAA 2025. x0 is the vocals,
eps standard normal noise, and sigma in [0, 1] the noise level, 0 for vocals and 1 for noise:

    alpha = cos(pi/2 sigma)        beta = sin(pi/2 sigma)
    (1)  x_sigma = alpha x0 + beta eps
    (2)  v       = alpha eps - beta x0

alpha^2 + beta^2 = 1, so (x_sigma, v) is (x0, eps) turned by the angle pi/2 sigma, and v is the
derivative of x_sigma by that angle. Turning back gives both estimates from one network output:

    (5)  x0_hat  = alpha x_sigma - beta v_hat
    (6)  eps_hat = beta x_sigma + alpha v_hat

No division anywhere, so both hold at every sigma, the ends included. A step of sampling takes
x from level t to a lower level s < t by mixing the two estimates at level s and replacing a part
delta of the estimated noise by fresh noise z of unit variance:

    (8)  delta = eta sqrt(beta_s^2 / beta_t^2) sqrt(1 - alpha_t^2 / alpha_s^2)
    (9)  beta' = sqrt(beta_s^2 - delta^2)
    (10) x_s   = alpha_s x0_hat + beta' eps_hat + delta z

Two corrections to the printed equations. (2) prints x_{sigma_T} where x0 is meant. (8) and (9) are
printed with the two levels swapped; alpha falls with the noise level, so that form takes the root
of a negative number at every step. The form above is equation 16 of Song et al., "Denoising
diffusion implicit models" (2021): for white z the noise in x_s has variance
beta'^2 + delta^2 = beta_s^2, as (1) asks, for every eta in [0, 1].

For high-passed z, as in the paper, that holds for the sum over all frequencies only. Each move
leaves (beta' / beta_s)^2 = 1 - eta^2 + eta^2 q^2 of the noise energy below the corner that (1) asks
for, with q = (alpha_t beta_s) / (alpha_s beta_t), and adds what is missing above the corner.

(1), (2), (5) and (6) are the functions here; (8) to (10) are `samplers.py`.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffsep_jax.typing import NoiseLevel, Scalar


def alpha_beta(
    sigma: Scalar | Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Weights of signal and noise at `sigma`, elementwise: cos and sin of pi/2 sigma.

    The cosine is taken as the sine of the complement: exactly 0 at sigma = 1, where float32's
    cos(pi/2) is a small negative number.
    """
    sigma = jnp.asarray(sigma, jnp.float32)
    quarter_turn = jnp.float32(jnp.pi / 2)
    return jnp.sin(quarter_turn * (1 - sigma)), jnp.sin(quarter_turn * sigma)


def diffuse(
    x0: Float[Array, "*shape"], noise: Float[Array, "*shape"], sigma: NoiseLevel
) -> Float[Array, "*shape"]:
    """x_sigma of equation (1). `sigma`: a scalar, or one value per leading index of `x0`."""
    alpha, beta = _weights_like(x0, sigma)
    return alpha * x0 + beta * noise


def velocity(
    x0: Float[Array, "*shape"], noise: Float[Array, "*shape"], sigma: NoiseLevel
) -> Float[Array, "*shape"]:
    """v of equation (2), what the network is trained to predict. `sigma` as in `diffuse`."""
    alpha, beta = _weights_like(x0, sigma)
    return alpha * noise - beta * x0


def x0_from_velocity(
    x: Float[Array, "*shape"], v: Float[Array, "*shape"], sigma: NoiseLevel
) -> Float[Array, "*shape"]:
    """x0_hat of equation (5), the vocals that `x` and `v` imply. `sigma` as in `diffuse`."""
    alpha, beta = _weights_like(x, sigma)
    return alpha * x - beta * v


def noise_from_velocity(
    x: Float[Array, "*shape"], v: Float[Array, "*shape"], sigma: NoiseLevel
) -> Float[Array, "*shape"]:
    """eps_hat of equation (6), the noise that `x` and `v` imply. `sigma` as in `diffuse`."""
    alpha, beta = _weights_like(x, sigma)
    return beta * x + alpha * v


def _weights_like(x: Array, sigma: NoiseLevel) -> tuple[Array, Array]:
    """alpha and beta of `sigma`, with axes of length 1 up to the rank of `x`."""
    sigma = jnp.asarray(sigma, jnp.float32)
    alpha, beta = alpha_beta(sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim)))
    return alpha, beta
