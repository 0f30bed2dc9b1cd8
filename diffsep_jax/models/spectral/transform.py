"""The transforms of the spectral networks: the conditioner's STFT and the generator's MDCT.

The generator works on an orthonormal MDCT (Princen and Bradley 1986) of the chunk alone: frames of
`FRAME` samples that lap over their neighbours by a sine window, without a window at the chunk's
outer edges. Energy is kept and white noise stays white, so x0, noise and velocity, and every
equation of `diffusion.py`, mean the same in it as in the waveform. It is computed as one rotation
of each pair of samples that mirror each other at an inner border, then a DCT-IV of each frame as a
matrix product: no FFT.

The conditioner reads and masks the STFT, whose frames are centred on those of the MDCT.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from diffsep_jax.models.layers import exact_products

FRAME = 1024
"""Samples of a frame of both transforms, and coefficients of the MDCT's."""

Coefficients = Float[Array, "batch frame channel coefficient"]
Bins = Complex[Array, "batch frame channel bin"]


@exact_products()
def mdct(audio: Float[Array, "batch time channel"]) -> Coefficients:
    """Coefficients of a chunk whose time is a multiple of `FRAME`.

    Coefficient k is at the frequency (k + 1/2) / (2 FRAME) of the sample rate.
    """
    return _lap(_blocks(audio), 1.0) @ _type_four(np.cos)


@exact_products()
def mdst(audio: Float[Array, "batch time channel"]) -> Coefficients:
    """`mdct` with sines in place of cosines: its quadrature component."""
    return _lap(_blocks(audio), -1.0) @ _type_four(np.sin)


@exact_products()
def inverse_mdct(coefficients: Coefficients) -> Float[Array, "batch time channel"]:
    """The inverse, which is the transpose."""
    blocks = _lap(coefficients @ _type_four(np.cos), -1.0).swapaxes(2, 3)
    return blocks.reshape(blocks.shape[0], -1, blocks.shape[-1])


def stft(audio: Float[Array, "batch time channel"], window: int) -> Bins:
    """Spectra of `window` samples under a root-Hann window, one for each `FRAME` samples.

    `window` is an even multiple of `FRAME`, the time a multiple of `FRAME`. White noise of unit
    variance has bins of unit variance, except for the first and the last.
    """
    batch, time, channels = audio.shape
    frames, margin, count = time // FRAME, (window - FRAME) // 2, 2 * window // FRAME
    padded = jnp.pad(audio, ((0, 0), (margin, margin), (0, 0)))
    halves = padded.reshape(batch, -1, FRAME // 2, channels)
    # A frame is `count` half frames, and begins two after the one before it.
    parts = [halves[:, part : part + 2 * frames - 1 : 2] for part in range(count)]
    blocks = jnp.stack(parts, axis=2).reshape(batch, frames, window, channels)
    return jnp.fft.rfft(
        blocks.swapaxes(2, 3) * (_root_hann(window) * np.sqrt(2 / window, dtype="f4"))
    )


def inverse_stft(bins: Bins, window: int) -> Float[Array, "batch time channel"]:
    """The audio with the nearest `stft`: windowed, added up, over the sum of squared windows."""
    batch, frames, channels, _ = bins.shape
    margin, count = (window - FRAME) // 2, 2 * window // FRAME
    blocks = jnp.fft.irfft(bins, n=window) * (_root_hann(window) * np.sqrt(window / 2, dtype="f4"))
    parts = blocks.swapaxes(2, 3).reshape(batch, frames, count, FRAME // 2, channels)
    total = jnp.zeros((batch, 2 * frames + count - 2, FRAME // 2, channels))
    for part in range(count):
        total = total.at[:, part : part + 2 * frames - 1 : 2].add(parts[:, :, part])
    audio = total.reshape(batch, -1, channels)[:, margin : margin + frames * FRAME]
    return audio / _squared_windows(window, frames)[None, :, None]


def _blocks(audio: Float[Array, "batch time channel"]) -> Coefficients:
    batch, _, channels = audio.shape
    return audio.reshape(batch, -1, FRAME, channels).swapaxes(2, 3)


def _lap(blocks: Coefficients, sign: float) -> Coefficients:
    """Turns each pair of samples that mirror each other at an inner border; sign -1 undoes it."""
    half = FRAME // 2
    rise, fall = _sine_window()
    left, right = blocks[:, :-1, :, half:][..., ::-1], blocks[:, 1:, :, :half]
    # Cosines continue evenly before a frame and oddly after it.
    before = rise * left - sign * fall * right
    after = rise * right + sign * fall * left
    first_halves = jnp.concatenate([blocks[:, :1, :, :half], after], axis=1)
    last_halves = jnp.concatenate([before[..., ::-1], blocks[:, -1:, :, half:]], axis=1)
    return jnp.concatenate([first_halves, last_halves], axis=-1)


@functools.cache
def _sine_window() -> tuple[np.ndarray, np.ndarray]:
    """The window's values at 1/2, 3/2, ... samples after a border, and as far before it."""
    angles = np.pi / (2 * FRAME) * (FRAME // 2 + np.arange(FRAME // 2) + 0.5)
    rise, fall = np.sin(angles)[None, None, None], np.cos(angles)[None, None, None]
    return rise.astype(np.float32), fall.astype(np.float32)


@functools.cache
def _type_four(wave: Callable) -> Float[np.ndarray, "sample coefficient"]:
    """The orthonormal DCT-IV or DST-IV: its own transpose and its own inverse."""
    points = np.arange(FRAME) + 0.5
    matrix = np.sqrt(2 / FRAME) * wave(np.pi / FRAME * points[:, None] * points[None])
    return matrix.astype(np.float32)


@functools.cache
def _root_hann(window: int) -> Float[np.ndarray, "1 1 1 window"]:
    angles = np.pi / window * (np.arange(window) + 0.5)
    return np.sin(angles).astype(np.float32)[None, None, None]


@functools.cache
def _squared_windows(window: int, frames: int) -> Float[np.ndarray, "time"]:
    """The sum at each sample of the squared windows of the frames that it is in."""
    power = np.square(np.sin(np.pi / window * (np.arange(window) + 0.5)))
    total = np.zeros((frames - 1) * FRAME + window)
    for start in range(0, frames * FRAME, FRAME):
        total[start : start + window] += power
    margin = (window - FRAME) // 2
    return total[margin : margin + frames * FRAME].astype(np.float32)
