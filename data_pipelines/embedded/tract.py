"""The sound of the vocal folds and of the tract above them.

Pulses are the derivative of a glottal flow. The tract is all-pole: five moving formants below fixed
higher ones, the tilt of the source, and a zero for nasals, applied in the frequency domain.
"""

import functools

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono, Track
from data_pipelines.embedded.singer import Singer

FRAME_HOP = 512
"""Samples between two shapes of the tract."""
_FRAME, _FFT = 1024, 2048


@functools.lru_cache(maxsize=64)
def glottal_tables(open_quotient: float) -> Float[np.ndarray, "level table"]:
    """Derivative of the glottal flow, g(t) = t^2 (T - t) while open (Klatt and Klatt 1990)."""
    t = np.arange(8192) / 8192 / open_quotient
    flow = np.where(t < 1, 2 * t - 3 * t**2, 0.0)
    return dsp.wavetables(scipy.fft.rfft(flow)[1:601])


def untilted_noise(rng: Generator, singer: Singer, n: int, sample_rate: int) -> Mono:
    """Noise that `vocal_tract` leaves white except for its formants.

    Turbulence arises above the glottis and lacks the tilt of the pulses; a zero at the tilt's pole
    for middle effort cancels it.
    """
    pole = np.float32(_tilt_pole(singer, np.array([0.6]), sample_rate)[0])
    white = rng.standard_normal(n, np.float32)
    white[1:] -= pole * white[:-1].copy()
    return white / (1 - pole)


def _tilt_pole(singer: Singer, effort: np.ndarray, sample_rate: int) -> np.ndarray:
    """Soft phonation loses treble first, so the source's corner follows the effort."""
    corner = singer.brightness_hz * np.clip(effort, 0.05, 1.2) ** 0.8
    return np.exp(-2 * np.pi * np.minimum(corner, 0.45 * sample_rate) / sample_rate)


def vocal_tract(
    singer: Singer,
    source: Mono,
    formants: Float[np.ndarray, "frame 3"],
    nasal: Track,
    f0_hz: Track,
    effort: Track,
    active: Bool[np.ndarray, "frame"],
    sample_rate: int,
) -> Mono:
    """Filters the source by resonances that move from frame to frame, where it is `active`.

    Frame i is centred on sample `i * FRAME_HOP`; frames are weighted by a Hann window and added.
    """
    count = len(formants)
    ring = min(singer.ring_db, 15.0) / 15.0
    spacing = 1000.0 * singer.tract
    f1 = np.maximum(formants[:, 0], f0_hz * 1.02)
    f2 = np.maximum(formants[:, 1], f1 * 1.15)
    f3 = np.maximum(formants[:, 2], f2 * 1.08)
    f4 = np.maximum(3.45 * spacing - 0.5 * ring * spacing, f3 + 150.0)
    f5 = np.maximum(4.5 * spacing - 1.1 * ring * spacing, f4 + 250.0)
    wide = 1 + 1.2 * nasal
    bandwidths = [
        60 * wide + 0.02 * f1,
        70 + 0.02 * f2,
        90 + 0.025 * f3,
        140 + 0 * f4,
        200 + 0 * f5,
    ]
    denominator = np.zeros((count, 12))
    denominator[:, 0] = 1.0
    scale = np.ones(count)
    for hz, bandwidth in zip([f1, f2, f3, f4, f5], bandwidths, strict=True):
        radius = np.exp(-np.pi * bandwidth / sample_rate)
        a1 = -2 * radius * np.cos(2 * np.pi * np.minimum(hz, 0.46 * sample_rate) / sample_rate)
        a2 = radius**2
        scale *= 1 + a1 + a2
        step = denominator.copy()
        step[:, 1:] += a1[:, None] * denominator[:, :-1]
        step[:, 2:] += a2[:, None] * denominator[:, :-2]
        denominator = step
    pole = _tilt_pole(singer, effort, sample_rate)
    scale *= 1 - pole
    tilted = denominator.copy()
    tilted[:, 1:] -= pole[:, None] * denominator[:, :-1]
    # A nasal murmur: one zero near 1 kHz and less level.
    radius = np.exp(-np.pi * 120 / sample_rate) * nasal
    zero = np.zeros((count, 3))
    zero[:, 0] = 1.0
    zero[:, 1] = -2 * radius * np.cos(2 * np.pi * 950 * singer.tract / sample_rate)
    zero[:, 2] = radius**2
    scale /= zero.sum(axis=1)

    z = np.exp(-2j * np.pi * np.arange(_FFT // 2 + 1) / _FFT)
    fixed = np.ones(len(z), np.complex128)
    hz = 5.5 * spacing
    while hz < 0.45 * sample_rate:
        radius_k = np.exp(-np.pi * (150 + 0.05 * hz) / sample_rate)
        a1_k, a2_k = -2 * radius_k * np.cos(2 * np.pi * hz / sample_rate), radius_k**2
        fixed *= (1 + a1_k + a2_k) / (1 + a1_k * z + a2_k * z**2)
        hz += spacing
    lift = 10 ** (np.clip(singer.ring_db, 0, 6) / 20)
    f = np.arange(len(z)) * sample_rate / _FFT
    fixed *= 1 + (lift - 1) * np.exp(-(((f - 3000 * singer.tract) / 900) ** 2))

    fixed = fixed.astype(np.complex64)
    padded = np.zeros(count * FRAME_HOP + _FFT, np.float32)
    padded[_FRAME // 2 : _FRAME // 2 + len(source)] = source
    view = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::FRAME_HOP][:count]
    window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
    out = np.zeros(len(padded) + _FFT, np.float32)
    chosen = np.flatnonzero(active)
    for block in np.array_split(chosen, max(1, len(chosen) // 64)):
        # The resonances need float64 up to here: near a pole the polynomial nearly cancels.
        response = scipy.fft.rfft(zero[block] * scale[block, None], _FFT).astype(np.complex64)
        response /= scipy.fft.rfft(tilted[block], _FFT).astype(np.complex64)
        response *= fixed
        spectrum = scipy.fft.rfft(view[block] * window, _FFT)
        frames = scipy.fft.irfft(spectrum * response, _FFT)
        for index, frame in zip(block, frames, strict=True):
            out[index * FRAME_HOP : index * FRAME_HOP + _FFT] += frame
    return out[_FRAME // 2 : _FRAME // 2 + len(source)]
