"""1-D convolution along time: the platform's own, or a sum over taps.

For a small batch and a long time axis the TPU compiler copies the windows of a convolution into
arrays several times the size of its input; one matrix product for each tap needs no such copies.
Elsewhere the native convolution is faster.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Convolution = Literal["auto", "native", "taps"]


def choose_convolution(platform: str) -> Convolution:
    """What `auto` stands for on a platform of JAX."""
    return "taps" if platform == "tpu" else "native"


def convolution_fn(convolution: Convolution) -> Any:
    """The function that `flax.linen.Conv` shall call; None is its own."""
    if convolution == "auto":
        convolution = choose_convolution(jax.default_backend())
    return sum_over_taps if convolution == "taps" else None


def sum_over_taps(inputs: Array, kernel: Array, *_: object, **__: object) -> Array:
    """Convolution of `[batch, time, channel]` with `[tap, channel, out]`: stride 1, same length.

    The products are added up in float32. The other arguments are those of
    `jax.lax.conv_general_dilated`, which have one value each in these networks.
    """
    taps, time = kernel.shape[0], inputs.shape[1]
    before = (taps - 1) // 2
    padded = jnp.pad(inputs, ((0, 0), (before, taps - 1 - before), (0, 0)))
    total = None
    for tap in range(taps):
        product = jnp.einsum(
            "btc,cd->btd",
            padded[:, tap : tap + time],
            kernel[tap],
            preferred_element_type=jnp.float32,
        )
        total = product if total is None else total + product
    assert total is not None
    return total.astype(inputs.dtype)
