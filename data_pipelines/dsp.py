"""Signal blocks of the song synthesiser: oscillators, modal notes, filters, rooms, placement.

All are vectorised over time; everything is float32 except phases, which need float64.
"""

import functools
import itertools

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float
from numpy.random import Generator

Mono = Float[np.ndarray, "time"]
Stereo = Float[np.ndarray, "time 2"]
Track = Float[np.ndarray, "frame"]
"""Slow control of a sound: one value for some samples."""

TABLE_SIZE = 4096
"""Samples in one cycle of a wavetable."""

_CHUNK = 1 << 15


def midi_to_hz(midi: float) -> float:
    """Frequency in hertz of a MIDI pitch (69 is 440 Hz); fractions are allowed."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


def db_to_gain(db: float) -> float:
    """Amplitude factor of a level in decibels."""
    return float(10.0 ** (db / 20.0))


def rms(x: Float[np.ndarray, "..."]) -> float:
    """Root of the mean square, summed in float64."""
    return float(np.sqrt(np.mean(np.square(x), dtype=np.float64))) if x.size else 0.0


def active_rms(track: Stereo, hop: int, share: float) -> float:
    """RMS over the blocks of `hop` samples with at least this share of the loudest one's power."""
    count = max(1, len(track) // hop)
    power = np.square(track[: count * hop]).reshape(count, -1).mean(axis=1)
    return float(np.sqrt(power[power >= share * power.max()].mean())) if power.max() > 0 else 0.0


def upsample(control: Track, hop: int, n: int) -> Mono:
    """Linear interpolation of a control track (one value every `hop` samples) to `n` samples."""
    ramp = np.arange(hop, dtype=control.dtype) / control.dtype.type(hop)
    following = np.append(control[1:], control[-1])
    return (control[:, None] + (following - control)[:, None] * ramp).ravel()[:n]


def smooth_noise(rng: Generator, n: int, rate: float, cutoff_hz: float) -> Track:
    """Random track of about unit variance, `n` values at `rate` per second, slow as `cutoff_hz`."""
    knots = max(4, int(np.ceil(n / rate * cutoff_hz * 2)) + 3)
    values = rng.standard_normal(knots) * 1.2
    return np.interp(np.linspace(0, knots - 1, n), np.arange(knots), values)


def swell(rng: Generator, n: int, sample_rate: int, spread_db: float, cutoff_hz: float) -> Mono:
    """Random gain with a spread in decibels, slow as `cutoff_hz`."""
    hop = 64
    db = spread_db * smooth_noise(rng, n // hop + 1, sample_rate / hop, cutoff_hz)
    return upsample((10 ** (db / 20)).astype(np.float32), hop, n)


def mono(x: Float[np.ndarray, "time channel"]) -> Mono:
    """Mean of the first and the last channel (many times faster than a mean over a short axis)."""
    return (x[:, 0] + x[:, -1]) * np.float32(0.5)


def wavetables(harmonics: Complex[np.ndarray, "harmonic"]) -> Float[np.ndarray, "level table"]:
    """Band-limited cycles of one waveform; level l holds the harmonics up to 2^(l/2).

    `harmonics[k]` is the complex amplitude of harmonic k + 1. The last column repeats the first,
    for interpolation. The richest level has unit RMS; the others keep its scale.
    """
    size = len(harmonics)
    levels = int(2 * np.log2(size)) + 1
    spectrum = np.zeros((levels, TABLE_SIZE // 2 + 1), np.complex128)
    for level in range(levels):
        count = min(size, int(2 ** (level / 2)))
        spectrum[level, 1 : count + 1] = harmonics[:count]
    tables = scipy.fft.irfft(spectrum, TABLE_SIZE, axis=-1)
    tables /= rms(tables[-1])
    return np.concatenate([tables, tables[:, :1]], axis=1).astype(np.float32)


def phase_of(f0_hz: Mono, sample_rate: int) -> Mono:
    """Running phase in cycles (float64) of an instantaneous frequency."""
    return np.cumsum(f0_hz, dtype=np.float64) / sample_rate


def oscillate(
    tables: Float[np.ndarray, "level table"], phase: Mono, f0_hz: Track, hop: int, sample_rate: int
) -> Mono:
    """Reads a wavetable along a phase, at the richest level that does not alias at that f0."""
    allowed = 0.47 * sample_rate / np.maximum(f0_hz, 20.0)
    level = np.clip((2 * np.log2(np.maximum(allowed, 1.0))).astype(np.int32), 0, len(tables) - 1)
    base = level * (TABLE_SIZE + 1)
    flat = tables.ravel()
    out = np.empty(len(phase), np.float32)
    frames = _CHUNK // hop
    # In chunks, so that the intermediate arrays stay in the processor's cache.
    for first in range(0, -(-len(phase) // hop), frames):
        part = phase[first * hop : (first + frames) * hop]
        position = (part - np.floor(part)).astype(np.float32) * np.float32(TABLE_SIZE)
        index = np.minimum(position.astype(np.int32), TABLE_SIZE - 1)
        fraction = position - index
        index += np.repeat(base[first : first + frames], hop)[: len(part)]
        low = flat[index]
        index += 1
        out[first * hop : first * hop + len(part)] = low + (flat[index] - low) * fraction
    return out


def modal(
    frequencies_hz: Float[np.ndarray, "mode"],
    decay_seconds: Float[np.ndarray, "mode"],
    amplitudes: Float[np.ndarray, "mode"],
    phases: Float[np.ndarray, "mode"],
    n: int,
    sample_rate: int,
) -> Mono:
    """Sum of decaying sinusoids, `amplitude * exp(-t / decay) * cos(2 pi f t + phase)`.

    With t = block * a + b the exponential factors into exp(..a) exp(..b), so the sum over modes is
    a matrix product of two small tables and costs no sine per sample. Modes near Nyquist are left
    out.
    """
    keep = frequencies_hz < 0.46 * sample_rate
    rate = (-1.0 / decay_seconds[keep] + 2j * np.pi * frequencies_hz[keep]) / sample_rate
    start = amplitudes[keep] * np.exp(1j * phases[keep])
    block = 256
    rows = -(-n // block)
    outer = (np.exp(np.arange(rows)[:, None] * (block * rate)) * start).astype(np.complex64)
    inner = np.exp(rate[:, None] * np.arange(block)).astype(np.complex64)
    return (outer.real @ inner.real - outer.imag @ inner.imag).ravel()[:n]


def shaped_noise(
    rng: Generator, n: int, sample_rate: int, low_hz: float, high_hz: float, slope: float = 2.0
) -> Mono:
    """Unit-RMS noise between two soft edges; `slope` is the steepness (2 is 12 dB per octave)."""
    size = scipy.fft.next_fast_len(max(n, 16), real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, np.float32))
    f = np.maximum(scipy.fft.rfftfreq(size, 1 / sample_rate), 1.0).astype(np.float32)
    low, high = (f / np.float32(low_hz)) ** 2, (f / np.float32(high_hz)) ** 2
    spectrum *= (low / (1 + low)) ** np.float32(slope / 2) * (1 + high) ** np.float32(-slope / 2)
    x = scipy.fft.irfft(spectrum, size)[:n]
    return x / np.float32(rms(x) + 1e-9)


def equalise(
    x: Float[np.ndarray, "time channel"], sample_rate: int, points: list[tuple[float, float]]
) -> Float[np.ndarray, "time channel"]:
    """Filters by a linear-phase FIR through (Hz, dB) points, joined straight in log frequency."""
    taps = 2048
    f = np.maximum(scipy.fft.rfftfreq(taps, 1 / sample_rate), 10.0)
    hz, db = np.array(sorted(points)).T
    gain = 10 ** (np.interp(np.log(f), np.log(hz), db) / 20)
    impulse = np.roll(scipy.fft.irfft(gain, taps), taps // 2) * np.hanning(taps)
    y = convolve(x, np.repeat(impulse[:, None], x.shape[1], axis=1).astype(np.float32))
    return y[taps // 2 : taps // 2 + len(x)]


def convolve(
    x: Float[np.ndarray, "time channel"], impulse: Float[np.ndarray, "tap out"]
) -> Float[np.ndarray, "full out"]:
    """Full convolution, channel by channel, by overlap-add; a mono `x` feeds every channel."""
    taps, n = len(impulse), len(x)
    size = 1 << int(np.ceil(np.log2(4 * taps)))
    step = size - taps + 1
    response = scipy.fft.rfft(impulse.astype(np.float32).T, size, axis=-1)
    out = np.zeros((n + size, impulse.shape[1]), np.float32)
    for start in range(0, n, step):
        block = np.ascontiguousarray(x[start : start + step].T)
        wet = scipy.fft.irfft(scipy.fft.rfft(block, size, axis=-1) * response, size, axis=-1)
        stop = min(start + size, len(out))
        out[start:stop] += wet[:, : stop - start].T
    return out[: n + taps - 1]


def room(
    rng: Generator, sample_rate: int, seconds: float, brightness_hz: float, predelay: float
) -> Float[np.ndarray, "tap 2"]:
    """Stereo impulse response of a room: early echoes, then a tail whose treble dies first.

    `seconds` is the time to fall by 60 dB, `predelay` the seconds before the tail; bands far above
    `brightness_hz` are weaker and decay faster. The channels' tails are independent. Unit energy.
    """
    n = int(sample_rate * min(seconds, 2.5))
    t = np.arange(n) / sample_rate
    tail = np.zeros((n, 2))
    edges = [60.0, 400.0, 1500.0, 5000.0, min(14000.0, 0.45 * sample_rate)]
    for low, high in itertools.pairwise(edges):
        decay = seconds / 6.9 / (1 + low / brightness_hz)
        for channel in range(2):
            band = shaped_noise(rng, n, sample_rate, low, high)
            tail[:, channel] += band * np.exp(-t / decay) / (1 + low / (2 * brightness_hz))
    tail *= (1 - np.exp(-t / 0.015))[:, None]
    start = int(predelay * sample_rate)
    tail = np.concatenate([np.zeros((start, 2)), tail])[:n]
    tail /= np.sqrt(np.mean(np.sum(tail**2, axis=0)))
    for _ in range(int(rng.integers(4, 10))):
        at = int(rng.uniform(0.004, 0.06) * sample_rate)
        if at < n:
            tail[at] += rng.normal(0, 0.25, 2)
    return tail.astype(np.float32)


def reverberate(
    x: Float[np.ndarray, "time channel"], impulse: Float[np.ndarray, "tap 2"]
) -> Stereo:
    """The wet signal alone, cut to the length of `x`."""
    return convolve(mono(x)[:, None], impulse)[: len(x)]


def compress(
    x: Float[np.ndarray, "time channel"], sample_rate: int, ratio: float, threshold_db: float
) -> Float[np.ndarray, "time channel"]:
    """Feed-forward compressor on 10 ms levels; the threshold is relative to the signal's RMS."""
    hop = sample_rate // 100
    count = -(-len(x) // hop)
    padded = np.zeros(count * hop, np.float32)
    padded[: len(x)] = np.square(mono(x))
    power = padded.reshape(count, hop).mean(axis=1)
    kernel = np.exp(-np.arange(12) / 4.0)
    level = np.convolve(power, kernel / kernel.sum())[:count]
    over = 10 * np.log10(level / (rms(x) ** 2 + 1e-12) + 1e-9) - threshold_db
    gain = 10 ** (-np.maximum(over, 0) * (1 - 1 / ratio) / 20)
    return x * upsample(gain.astype(np.float32), hop, len(x))[:, None]


def pan(x: Mono, position: float) -> Stereo:
    """Constant-power pan of a mono signal; -1 is left, 1 is right."""
    angle = (position + 1) * np.pi / 4
    gains = np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(np.sqrt(2))
    return x[:, None] * gains


def place(track: Float[np.ndarray, "..."], sample: Float[np.ndarray, "..."], start: int) -> None:
    """Adds a sample to a track in place, cutting what falls outside."""
    head = max(0, -start)
    n = min(len(sample) - head, len(track) - start - head)
    if n > 0:
        track[start + head : start + head + n] += sample[head : head + n]


@functools.lru_cache(maxsize=64)
def fade(n: int) -> Mono:
    """Half a raised cosine from 1 to 0."""
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, n))).astype(np.float32)


def cut(note: Float[np.ndarray, "..."], n: int, release: int) -> Float[np.ndarray, "..."]:
    """The first `n` samples of a note followed by a release of `release` samples."""
    out = note[: n + release].copy()
    release = min(release, len(out))
    if release:
        curve = fade(release)
        out[len(out) - release :] *= curve if out.ndim == 1 else curve[:, None]
    return out
