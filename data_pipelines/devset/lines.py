"""Lines of a voice: takes of one person, cleaned and joined with pauses between them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Bool, Float
from numpy.random import Generator

from data_pipelines.dsp import Mono, db_to_gain, place, rms

SAMPLE_RATE = 44_100
_FRAME = SAMPLE_RATE // 100
_BELOW_LOUD_DB = 32.0
_LOWEST_HZ = 70.0  # rumble and offsets of a microphone would count as voice
_TAKE_SECONDS, _LEAST_SOUNDING = (0.25, 6.0), 0.72
_MOST_UNFIT = 25


class Take(NamedTuple):
    """One recording without its silent ends, at unit RMS where it sounds.

    Attributes:
        sounding: number of samples in frames that sound.
    """

    samples: Mono
    sounding: int


def sounding(x: Mono) -> Bool[np.ndarray, "time_"]:
    """Which samples lie in frames of 10 ms at most 32 dB below the loud ones (95th percentile).

    The result ends with the last whole frame.
    """
    power = np.square(x[: len(x) // _FRAME * _FRAME].reshape(-1, _FRAME)).mean(axis=1)
    threshold = np.percentile(power, 95) * 10 ** (-_BELOW_LOUD_DB / 10)
    return np.repeat(power > threshold, _FRAME)


def resample(
    x: Float[np.ndarray, "time *channel"], from_rate: int
) -> Float[np.ndarray, "time_ *channel"]:
    """At 44.1 kHz."""
    if from_rate == SAMPLE_RATE:
        return x
    common = int(np.gcd(from_rate, SAMPLE_RATE))
    return scipy.signal.resample_poly(x, SAMPLE_RATE // common, from_rate // common)


def clean_take(
    audio: Float[np.ndarray, "time channel"], sample_rate: int, speed: float
) -> Take | None:
    """A take played at `speed`; None if it is too short, too long or full of pauses."""
    x = resample(audio.mean(axis=1), round(sample_rate * speed))
    if len(x) < SAMPLE_RATE // 5:
        return None
    highpass = scipy.signal.butter(4, _LOWEST_HZ, "high", fs=SAMPLE_RATE, output="sos")
    x = scipy.signal.sosfiltfilt(highpass, x)
    sounds = np.flatnonzero(sounding(x))
    first, end = sounds[0], sounds[-1] + 1
    x = x[max(0, first - 2 * _FRAME) : end + 3 * _FRAME].copy()
    mask = sounding(x)
    ramp = np.linspace(0, 1, _FRAME)
    x[:_FRAME] *= ramp
    x[-_FRAME:] *= ramp[::-1]
    shortest, longest = _TAKE_SECONDS
    long_enough = shortest < mask.sum() / SAMPLE_RATE < longest
    if not long_enough or mask.mean() <= _LEAST_SOUNDING:
        return None
    return Take(x / rms(x[: len(mask)][mask]), int(mask.sum()))


def draw_line(rng: Generator, pool: list[Path], read: Callable[[Path], Take | None]) -> Mono:
    """8 to 10 s in which takes sound for 60 to 74% of the time, with pauses between them.

    Files are used in their order and leave the pool; takes that would not fit stay in it.
    """
    num_samples, enough = int(SAMPLE_RATE * rng.uniform(8, 10)), rng.uniform(0.6, 0.7)
    takes: list[Take] = []
    unfit: list[Path] = []
    length = total = 0
    while total < enough * num_samples and pool and len(unfit) < _MOST_UNFIT:
        file = pool.pop(0)
        take = read(file)
        if take is None:
            continue
        length_with, total_with = length + len(take.samples), total + take.sounding
        if length_with > 0.93 * num_samples or total_with > 0.74 * num_samples:
            unfit.append(file)
            continue
        length, total = length_with, total_with
        takes.append(take._replace(samples=take.samples * db_to_gain(rng.uniform(-2, 2))))
    pool[:0] = unfit
    pauses = rng.dirichlet(np.full(len(takes) + 1, 4.0)) * (num_samples - length)
    line = np.zeros(num_samples)
    at = 0.0
    for take, pause in zip(takes, pauses[:-1], strict=True):
        at += pause
        place(line, take.samples, int(at))
        at += len(take.samples)
    return line
