"""The multichannel Wiener filter: which source is where in a chunk's stereo image.

The masks of the conditioner see a bin and its surroundings. Where a voice stays in the middle and
an instrument at the side, the covariance of the channels over the chunk tells them apart. With
y_j the spectra of the vocals and of the rest, v_j the mean of |y_j|^2 over channels, and R_j the
normalised covariance of the channels at a frequency (Duong, Vincent and Gribonval 2010),

    R_j = sum_t y_j y_j^H / sum_t v_j         vocals = v_1 R_1 (v_1 R_1 + v_2 R_2)^-1 mixture

where the matrix to invert has `LOADING` of its trace added to its diagonal.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from diffsep_jax.models.spectral.transform import Bins

LOADING = 1e-2
"""Share of a bin's power, of both sources and channels, that is added to each channel: the inverse
stays finite where both channels are the same."""

TINY = 1e-9
"""Power of a bin that counts as silence; mixtures have about unit RMS."""


@jax.checkpoint
def wiener_filter(mixture: Bins, vocals: Bins) -> Bins:
    """The vocals by the filter that an estimate of them implies; two channels.

    The backward pass recomputes the filter, which is cheap; it would keep many arrays otherwise.
    """
    sources = (vocals, mixture - vocals)
    covariances = [_covariance(source) for source in sources]
    left, right, cross = (sum(parts) for parts in zip(*covariances, strict=True))
    total = left + right + TINY
    left, right = left / total + LOADING, right / total + LOADING
    cross = cross * (1 / total).astype(cross.dtype)
    # Real, of about 1 / total: the gradient of a complex quotient would leave float32's range.
    inverse = 1 / (total * (left * right - _square(cross)))
    left, right, inverse = (z.astype(cross.dtype) for z in (left, right, inverse))
    x, y = mixture[:, :, 0], mixture[:, :, 1]
    u = (right * x - cross * y) * inverse
    w = (left * y - cross.conj() * x) * inverse
    left, right, cross = (z.astype(cross.dtype) for z in covariances[0])
    return jnp.stack([left * u + cross * w, cross.conj() * u + right * w], axis=2)


def _covariance(source: Bins) -> tuple[Array, ...]:
    """v R: the power of the left and of the right channel, and the product of left and right*."""
    x, y = source[:, :, 0], source[:, :, 1]
    left, right = _square(x), _square(y)
    power = 0.5 * (left + right)
    gain = power / (power.sum(1, keepdims=True) + TINY)
    cross = x * y.conj()
    means = (part.sum(1, keepdims=True) for part in (left, right, cross))
    return tuple(mean * gain.astype(mean.dtype) for mean in means)


def _square(x: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    """|x|^2, with a gradient at 0."""
    return jnp.square(x.real) + jnp.square(x.imag)
