"""1-D convolution along time: the platform's own, or a form that its compiler handles better.

XLA's CPU compiler has a fast convolution for channels-last operands only. It brings others into
that layout in a program's outermost computation, but not inside a loop (micro-batches), where the
gradients of a convolution take ten times as long: `channels_last` writes them in that layout.
Without gradients it takes convolutions of three taps by Winograd's form, a third cheaper.

For a small batch and a long time axis the TPU compiler copies the windows of a convolution into
arrays several times the size of its input; one matrix product for each tap needs no such copies.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from diffsep_jax.models.product import named_product

Convolution = Literal["auto", "native", "channels_last", "taps", "portable"]

WINOGRAD_CHANNELS = 64
"""From here on, on the CPU, a multiplication saved is worth more than the additions it costs."""

_CHANNELS_LAST = ("NWC", "WIO", "NWC")


def choose_convolution(platform: str) -> Convolution:
    """What `auto` stands for on a platform of JAX."""
    if platform == "cpu":
        return "channels_last"
    return "taps" if platform == "tpu" else "native"


def convolution_fn(convolution: Convolution) -> Callable[..., Array]:
    """The function that `flax.linen.Conv` shall call.

    It takes `[batch, time, channel]` and `[tap, channel, out]` and keeps the length. The further
    arguments are those of `jax.lax.conv_general_dilated`, which have one value each in these
    networks.
    """
    if convolution == "auto":
        convolution = choose_convolution(jax.default_backend())
    convolve = _portable if convolution == "portable" else _form(convolution)

    def convolve_named(inputs: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return named_product(convolve(inputs, kernel))

    return convolve_named


def _form(convolution: Convolution) -> Callable[[Array, Array], Array]:
    forms: dict[str, Callable[[Array, Array], Array]] = {
        "native": _native,
        "channels_last": _channels_last,
        "taps": _sum_over_taps,
    }
    return forms[convolution]


def _portable(inputs: Array, kernel: Array) -> Array:
    """What `auto` is on the platforms that the program is lowered for; for `jax.export`."""
    cpu, tpu, gpu = (_form(choose_convolution(platform)) for platform in ("cpu", "tpu", "gpu"))
    return lax.platform_dependent(inputs, kernel, tpu=tpu, cuda=gpu, rocm=gpu, default=cpu)


def _native(inputs: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(inputs, kernel, (1,), "SAME", dimension_numbers=_CHANNELS_LAST)


@jax.custom_vjp
def _channels_last(inputs: Array, kernel: Array) -> Array:
    """Without a gradient to come: where it pays, the form with fewer multiplications."""
    taps, channels, out = kernel.shape
    fits = taps == 3 and inputs.shape[1] % 2 == 0 and inputs.dtype == jnp.float32
    if fits and min(channels, out) >= WINOGRAD_CHANNELS:
        return _winograd(inputs, kernel)
    return _native(inputs, kernel)


def _forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _native(inputs, kernel), (inputs, kernel)


def _backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel = operands
    before = _taps_before(kernel)
    after = kernel.shape[0] - 1 - before
    of_inputs = lax.conv_general_dilated(
        gradient,
        kernel[::-1].transpose(0, 2, 1),
        (1,),
        [(after, before)],
        dimension_numbers=_CHANNELS_LAST,
    )
    # The channels stand where the batch does, and the batch is summed over.
    of_kernel = lax.conv_general_dilated(
        inputs.transpose(2, 1, 0),
        gradient.transpose(1, 0, 2),
        (1,),
        [(before, after)],
        dimension_numbers=_CHANNELS_LAST,
    )
    return of_inputs, of_kernel.transpose(1, 0, 2)


_channels_last.defvjp(_forward, _backward)


def _winograd(inputs: Array, kernel: Array) -> Array:
    """Three taps for two positions by four products instead of six: F(2, 3) of Winograd (1980).

    The sums of taps are of the kernel alone, so that a sampler's loop does not repeat them.
    """
    batch, time, channels = inputs.shape
    pairs = jnp.pad(inputs, ((0, 0), (1, 1), (0, 0))).reshape(batch, time // 2 + 1, 2, channels)
    (x_0, x_1), (x_2, x_3) = (
        (part[:, :, 0], part[:, :, 1]) for part in (pairs[:, :-1], pairs[:, 1:])
    )
    outer, centre = kernel[0] + kernel[2], kernel[1]
    first, plus, minus, last = (
        lax.dot_general(x, matrix, (((2,), (0,)), ((), ())))
        for x, matrix in (
            (x_0 - x_2, kernel[0]),
            (x_1 + x_2, (outer + centre) / 2),
            (x_2 - x_1, (outer - centre) / 2),
            (x_1 - x_3, kernel[2]),
        )
    )
    both = jnp.stack([first + plus + minus, plus - minus - last], axis=2)
    return both.reshape(batch, time, -1)


def _sum_over_taps(inputs: Array, kernel: Array) -> Array:
    """One matrix product for each tap; they are added up in float32."""
    taps, time = kernel.shape[0], inputs.shape[1]
    before = _taps_before(kernel)
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


def _taps_before(kernel: Array) -> int:
    """Taps before the centre, as `SAME` padding has them."""
    return (kernel.shape[0] - 1) // 2
