"""1-D convolution along time: the platform's own, or a form that its compiler handles better.

XLA's CPU compiler has a fast convolution for channels-last operands only. It brings others into
that layout in a program's outermost computation, but not inside a loop (micro-batches), where the
gradients of a convolution take ten times as long: `channels_last` writes them in that layout.

For a small batch and a long time axis the TPU compiler copies the windows of a convolution into
arrays several times the size of its input; one matrix product for each tap, `taps`, needs no such
copies. GPUs take their library's convolutions, and `taps` for a type in which it has none.
"""

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

Convolution = Literal["auto", "native", "channels_last", "taps", "portable"]

_CHANNELS_LAST = ("NWC", "WIO", "NWC")


def convolve(inputs: Array, kernel: Array, convolution: Convolution = "auto") -> Array:
    """`[batch, time, channel]` with `[tap, channel, out]` to `[batch, time, out]`.

    `auto` is `choose_convolution` for the default platform; `portable`, for `jax.export`, for the
    platforms that the program is lowered for.
    """
    if convolution == "portable":
        cpu, tpu, gpu = (_FORMS[choose_convolution(name)] for name in ("cpu", "tpu", "gpu"))
        return lax.platform_dependent(inputs, kernel, tpu=tpu, cuda=gpu, rocm=gpu, default=cpu)
    if convolution == "auto":
        convolution = choose_convolution(jax.default_backend())
        if convolution == "native" and not _native_compiles(inputs.dtype.name):
            convolution = "taps"
    return _FORMS[convolution](inputs, kernel)


def choose_convolution(platform: str) -> Convolution:
    """What `auto` stands for on a platform of JAX, if it compiles there."""
    if platform == "cpu":
        return "channels_last"
    return "taps" if platform == "tpu" else "native"


def _native(inputs: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(inputs, kernel, (1,), "SAME", dimension_numbers=_CHANNELS_LAST)


@functools.cache
def _native_compiles(dtype: str) -> bool:
    """Whether a small convolution with its gradients compiles on the default device.

    For bfloat16 XLA may find no algorithm of cuDNN's: github.com/jax-ml/jax/issues/37922.
    """

    def loss(inputs: Array, kernel: Array) -> Array:
        return jnp.square(_native(inputs, kernel).astype(jnp.float32)).sum()

    def compile_gradients() -> None:
        shapes = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((2, 1024, 64), (3, 64, 64)))
        jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()

    # In a thread, as the caller is being traced, perhaps for a mesh.
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        try:
            executor.submit(compile_gradients).result()
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            return False
    return True


_channels_last = jax.custom_vjp(_native)


def _forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _native(inputs, kernel), (inputs, kernel)


def _backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel = operands
    before, after = _same_padding(kernel)
    of_inputs = lax.conv_general_dilated(
        gradient,
        kernel[::-1].transpose(0, 2, 1),
        (1,),
        [(after, before)],
        dimension_numbers=_CHANNELS_LAST,
    )
    # The channels take the place of the batch, and the sum is over the batch.
    of_kernel = lax.conv_general_dilated(
        inputs.transpose(2, 1, 0),
        gradient.transpose(1, 0, 2),
        (1,),
        [(before, after)],
        dimension_numbers=_CHANNELS_LAST,
    )
    return of_inputs, of_kernel.transpose(1, 0, 2)


_channels_last.defvjp(_forward, _backward)


def _sum_over_taps(inputs: Array, kernel: Array) -> Array:
    """One matrix product for each tap, summed in float32."""
    time = inputs.shape[1]
    padded = jnp.pad(inputs, ((0, 0), _same_padding(kernel), (0, 0)))
    products = [
        jnp.einsum(
            "btc,cd->btd", padded[:, tap : tap + time], matrix, preferred_element_type=jnp.float32
        )
        for tap, matrix in enumerate(kernel)
    ]
    return sum(products[1:], products[0]).astype(inputs.dtype)


def _same_padding(kernel: Array) -> tuple[int, int]:
    """Positions that `SAME` padding adds before and after."""
    before = (kernel.shape[0] - 1) // 2
    return before, kernel.shape[0] - 1 - before


_FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "native": _native,
    "channels_last": _channels_last,
    "taps": _sum_over_taps,
}
