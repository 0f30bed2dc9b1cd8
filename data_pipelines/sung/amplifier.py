"""Guitar amplifier and pedals: distortion, cabinet, wah, swept filters, chorus, rotary speaker."""

import functools

import numpy as np
import scipy.fft
import scipy.signal
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono, Stereo

OVERSAMPLING = 4


def amplify(rng: Generator, x: Mono, sample_rate: int, *, drive_db: float) -> Mono:
    """A guitar through a random amplifier and cabinet; `drive_db` from 10 (crunch) to 50 (metal).

    A high-pass keeps the bass from blurring, two asymmetric stages clip at four times the sample
    rate, then come the tone controls and the loudspeaker. The level is about that of full scale.
    """
    edges = [rng.uniform(80, 250), min(rng.uniform(4000, 8000), 0.4 * sample_rate)]
    tight = scipy.signal.butter(2, edges, "band", fs=sample_rate, output="sos")
    x = scipy.signal.sosfilt(tight.astype(np.float32), x)
    power = np.square(x)
    loud = np.sqrt(power[power >= 0.003 * power.max()].mean() + 1e-12)  # while it plays
    low_pass = _low_pass()
    y = scipy.signal.resample_poly(x / loud, OVERSAMPLING, 1, window=low_pass)
    bias = np.float32(rng.uniform(0.0, 0.3))
    y = np.tanh(y * np.float32(dsp.db_to_gain(drive_db / 2) / 2) + bias) - np.tanh(bias)
    y = np.tanh(y * np.float32(dsp.db_to_gain(drive_db / 2)) - bias / 2) + np.tanh(bias / 2)
    y = scipy.signal.resample_poly(y, 1, OVERSAMPLING, window=low_pass)
    return scipy.signal.oaconvolve(y, _cabinet(rng, sample_rate))[: len(x)]


@functools.cache
def _low_pass() -> Float[np.ndarray, "tap"]:
    """The resampler's filter: short, since a cabinet follows."""
    return scipy.signal.firwin(12 * OVERSAMPLING + 1, 0.9 / OVERSAMPLING).astype(np.float32)


def _cabinet(rng: Generator, sample_rate: int) -> Float[np.ndarray, "tap"]:
    """Minimum-phase response: a resonance near 100 Hz, tone controls, ripples, no treble."""
    taps = 1024
    f = np.maximum(scipy.fft.rfftfreq(2 * taps, 1 / sample_rate), 10.0)
    resonance, top = rng.uniform(80, 130), rng.uniform(3800, 6000)
    db = -12 * np.log2(1 + (resonance / f) ** 2)
    db += rng.uniform(1, 6) * np.exp(-((np.log2(f / resonance) * 2) ** 2))
    for hz, octaves, mean, spread in (
        (200, 1.0, 0, 3), (550, 0.8, -3, 3), (1200, 0.7, 0, 3), (2600, 0.6, 4, 3)
    ):  # fmt: skip
        gain = rng.normal(mean, spread)
        db += gain * np.exp(-((np.log2(f / (hz * rng.uniform(0.8, 1.25))) / octaves) ** 2))
    ripples = np.cumsum(rng.normal(0, 1, 40))
    ripples -= scipy.signal.savgol_filter(ripples, 11, 2)
    db += np.interp(np.log2(f), np.linspace(7, 13, 40), ripples * rng.uniform(1, 3))
    db -= 10 * np.log10(1 + (f / top) ** rng.uniform(8, 14))
    # The cepstrum folded onto positive times gives the minimum phase.
    cepstrum = scipy.fft.irfft(np.log(10.0) / 20 * np.maximum(db, -80))
    cepstrum[1:taps] *= 2
    cepstrum[taps + 1 :] = 0
    impulse = scipy.fft.irfft(np.exp(scipy.fft.rfft(cepstrum)))[:taps]
    return (impulse * np.hanning(2 * taps)[taps:]).astype(np.float32)


def sweep(
    x: Mono, sample_rate: int, position: Mono, *, low_hz: float, high_hz: float, wah: bool
) -> Mono:
    """A filter whose frequency follows `position` (0 to 1, from `low_hz` to `high_hz`).

    Low-pass, or the wah's resonant band-pass. Five filters are cross-faded.
    """
    count = 5
    out = np.zeros_like(x)
    for index, hz in enumerate(np.geomspace(low_hz, min(high_hz, 0.4 * sample_rate), count)):
        if wah:
            b, a = scipy.signal.iirpeak(hz, 3.0, fs=sample_rate)
            sos = scipy.signal.tf2sos(b, a)
        else:
            sos = scipy.signal.butter(2, hz, fs=sample_rate, output="sos")
        weight = np.maximum(0, 1 - np.abs(position * np.float32(count - 1) - np.float32(index)))
        out += weight * scipy.signal.sosfilt(sos.astype(np.float32), x)
    return out


def swing(n: int, sample_rate: int, *, hz: float, phase: float = 0.0) -> Mono:
    """A sine between 0 and 1."""
    turn = np.arange(n, dtype=np.float32) * np.float32(2 * np.pi * hz / sample_rate)
    return np.float32(0.5) + np.float32(0.5) * np.sin(turn + np.float32(phase))


def modulated_delay(
    x: Mono, sample_rate: int, position: Mono, *, least_ms: float, depth_ms: float
) -> Mono:
    """A delay that follows `position` (0 to 1): a chorus with the dry sound, a rotor alone."""
    delay = (position * np.float32(depth_ms) + np.float32(least_ms)) * np.float32(sample_rate / 1e3)
    whole = delay.astype(np.int32)
    index = np.arange(len(x), dtype=np.int32) - whole
    fraction = delay - whole
    padded = np.concatenate([np.zeros(2, x.dtype), x])
    newer = padded[np.maximum(index + 2, 0)]
    older = padded[np.maximum(index + 1, 0)]
    return newer + (older - newer) * fraction


def widen(rng: Generator, x: Stereo, sample_rate: int, effect: str) -> Stereo:
    """Chorus, tremolo or rotary speaker, a little different left and right."""
    hz = {"chorus": rng.uniform(0.2, 1.5), "tremolo": rng.uniform(3, 7), "rotary": 6.6}[effect]
    if effect == "rotary" and rng.random() < 0.5:
        hz = 0.8
    phase = float(rng.uniform(0, 2 * np.pi))
    depth = float(rng.uniform(0.4, 1.0))
    sides = []
    for channel in range(2):
        turn = swing(len(x), sample_rate, hz=hz, phase=phase + channel * rng.uniform(1, np.pi))
        side = x[:, channel]
        if effect == "chorus":
            depth_ms = 4.0 * depth / max(hz, 0.5)
            late = modulated_delay(side, sample_rate, turn, least_ms=7.0, depth_ms=depth_ms)
            side = (side + late * np.float32(depth)) * np.float32(0.7)
        else:
            if effect == "rotary":
                side = modulated_delay(side, sample_rate, turn, least_ms=1.0, depth_ms=0.4)
            side = side * (1 - np.float32(0.6 * depth) * turn)
        sides.append(side)
    return np.stack(sides, axis=1)
