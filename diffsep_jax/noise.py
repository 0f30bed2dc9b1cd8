"""Noise of the samplers: white noise by position in the track, and filters for it.

Training draws its own, by row of the batch: `diffsep_jax.training.step.draw_noise`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Integer, PRNGKeyArray

from diffsep_jax.typing import Count, Scalar, Waveform

KEY_TYPE = "threefry2x32"
"""Given by name, as an environment variable can change JAX's default."""


def key_of(seed: int | Integer[Array, ""]) -> PRNGKeyArray:
    """`jax.random.key(seed)` for a 32-bit seed, regardless of JAX_RANDOM_SEED_OFFSET."""
    word = jnp.asarray(seed, jnp.uint32)
    return jax.random.wrap_key_data(jnp.stack([jnp.zeros_like(word), word]), impl=KEY_TYPE)


# Samples drawn from one key. Short enough that the two partial blocks at a chunk's ends cost
# little, long enough that folding a key in costs nothing. Changing it changes every result.
_BLOCK = 1024


def white_noise(
    key: PRNGKeyArray,
    step: Count,
    start: Int[Array, "batch"],
    *,
    length: int,
    channels: int,
) -> Waveform:
    """Standard normal noise that is a function of (key, step, absolute sample position) only.

    `start`: int32, each chunk's first sample counted from the start of the track, >= 0. Overlapping
    chunks hold the same noise where they overlap, whatever their offsets, lengths and batch.
    Needs a key of `KEY_TYPE`, the only one of JAX's generators that draws the same with and without
    a batch. Returns float32 [batch, length, channels].
    """
    step_key = jax.random.fold_in(key, step)
    # Enough whole blocks for the chunk when it starts at the last sample of its first block.
    num_blocks = (length - 1 + _BLOCK - 1) // _BLOCK + 1

    def block(index: Array) -> Array:
        return jax.random.normal(
            jax.random.fold_in(step_key, index), (_BLOCK, channels), jnp.float32
        )

    def chunk(first_sample: Array) -> Array:
        indices = first_sample // _BLOCK + jnp.arange(num_blocks, dtype=jnp.int32)
        blocks = jax.vmap(block)(indices).reshape(num_blocks * _BLOCK, channels)
        return jax.lax.dynamic_slice_in_dim(blocks, first_sample % _BLOCK, length)

    return jax.vmap(chunk)(start.astype(jnp.int32))


def high_pass_gain(cutoff_hz: Scalar, length: int, sample_rate: float | int) -> Float[Array, "bin"]:
    """Gain at each rfft bin of `length` samples: a high-pass that keeps white noise's variance.

    The magnitude of the 4th-order digital Butterworth filter (`scipy.signal.butter(4, cutoff_hz,
    "highpass", fs=sample_rate)`), divided by its rms over the two-sided spectrum. `cutoff_hz` is
    below sample_rate / 2 and may be traced; at 0 and below there is no filter and the gain is 1.
    """
    cutoff_hz = jnp.asarray(cutoff_hz, jnp.float32)
    # The bilinear transform makes it |H|^2 = 1 / (1 + (tan(corner) / tan(theta))^8), where the
    # angles are half the digital frequencies. Both tangents are multiplied out into sines and
    # cosines, each cosine is the sine of its complement (0 at Nyquist, not -4e-8), and the larger
    # of the two terms is scaled to 1 before the 8th power: nothing overflows or divides 0 by 0.
    half_nyquist = jnp.float32(jnp.pi / (2 * length))
    double_bins = 2 * jnp.arange(length // 2 + 1, dtype=jnp.int32)
    sin_theta = jnp.sin(half_nyquist * double_bins.astype(jnp.float32))
    cos_theta = jnp.sin(half_nyquist * (length - double_bins).astype(jnp.float32))
    # Without a filter the gain of this corner is computed all the same, and not used.
    corner_hz = jnp.where(cutoff_hz > 0, cutoff_hz, 1)
    half_hertz = jnp.float32(jnp.pi / sample_rate)
    sin_corner = jnp.sin(half_hertz * corner_hz)
    cos_corner = jnp.sin(half_hertz * (sample_rate / 2 - corner_hz))
    passed, stopped = sin_theta * cos_corner, cos_theta * sin_corner
    scale = jnp.maximum(passed, stopped)
    passed, stopped = (passed / scale) ** 4, (stopped / scale) ** 4
    gain = passed / jnp.sqrt(passed**2 + stopped**2)
    # A real signal holds every bin twice, except DC (where the gain is 0) and, at an even length,
    # Nyquist.
    nyquist_energy = gain[-1] ** 2 if length % 2 == 0 else jnp.float32(0)
    rms = jnp.sqrt((2 * jnp.sum(gain**2) - nyquist_energy) / length)
    return jnp.where(cutoff_hz > 0, gain / rms, jnp.ones_like(gain))


def high_pass(noise: Waveform, cutoff_hz: Scalar, sample_rate: float | int) -> Waveform:
    """High-passed `noise` of the same variance: the spectrum times `high_pass_gain`, along time.

    Zero phase and circular: for stationary noise only the magnitude matters, and there is no
    transient at the start to let die out.
    """
    length = noise.shape[1]
    gain = high_pass_gain(cutoff_hz, length, sample_rate)
    spectrum = jnp.fft.rfft(noise, axis=1) * gain[None, :, None].astype(jnp.complex64)
    return jnp.fft.irfft(spectrum, n=length, axis=1)


CROSSOVER_OCTAVES = 1 / 3
"""Width of the transition of `crossover`, from all of one input to all of the other."""


def crossover(
    low: Waveform, high: Waveform, frequency_hz: Scalar, sample_rate: float | int
) -> Waveform:
    """`low` below a frequency and `high` above it. The frequency is above 0 and may be traced.

    The gains have zero phase and add up to 1, so that equal inputs are returned unchanged. They are
    applied to the spectrum of the whole length, which makes them circular.
    """
    length = high.shape[1]
    hertz = jnp.maximum(jnp.fft.rfftfreq(length, 1 / sample_rate), 1e-3).astype(jnp.float32)
    octaves = jnp.log2(hertz / frequency_hz)
    gain = 0.5 + 0.5 * jnp.sin(jnp.pi * jnp.clip(octaves / CROSSOVER_OCTAVES, -0.5, 0.5))
    spectrum = jnp.fft.rfft(high - low, axis=1) * gain[None, :, None].astype(jnp.complex64)
    return low + jnp.fft.irfft(spectrum, n=length, axis=1)
