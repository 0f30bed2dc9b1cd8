"""JAX's own normal draws of the threefry2x32 generator, written for the CPU compiler.

`jax.random` runs the rounds of the hash in a loop on the CPU, which writes its state to memory
after each four; here they are one expression that the compiler fuses. The numbers are the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, PRNGKeyArray, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """`jax.random.normal(key, shape)` for a threefry2x32 key and fewer than 2^32 numbers."""
    first, second = jax.random.key_data(key)
    counts = jnp.arange(np.prod(shape), dtype=jnp.uint32).reshape(shape)
    high, low = threefry2x32(first, second, jnp.zeros_like(counts), counts)
    # 23 bits make a number in [1, 2), which is brought to (-1, 1).
    mantissa = (high ^ low) >> 9
    one_to_two = jax.lax.bitcast_convert_type(mantissa | np.uint32(0x3F800000), jnp.float32)
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jnp.maximum(lowest, (one_to_two - 1) * (1 - lowest) + lowest)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def threefry2x32(
    key_0: UInt32[Array, "*#shape"],
    key_1: UInt32[Array, "*#shape"],
    x_0: UInt32[Array, "*shape"],
    x_1: UInt32[Array, "*shape"],
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """The hash of pairs of words, elementwise: Threefry-2x32-20 (Salmon et al. 2011)."""
    keys = (key_0, key_1, key_0 ^ key_1 ^ _PARITY)
    x_0, x_1 = x_0 + keys[0], x_1 + keys[1]
    for group in range(1, 6):
        for rotation in _ROTATIONS[(group - 1) % 2]:
            x_0 = x_0 + x_1
            x_1 = x_0 ^ ((x_1 << rotation) | (x_1 >> (32 - rotation)))
        x_0 = x_0 + keys[group % 3]
        x_1 = x_1 + keys[(group + 1) % 3] + np.uint32(group)
    return x_0, x_1
