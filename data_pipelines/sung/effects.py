"""Studio effects on a voice, each at random and with random settings.

The order is that of a mixing desk: equaliser, compressor, saturation, doubling, delay, space.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo


class Desk(NamedTuple):
    """Arguments of all effects."""

    rng: Generator
    sample_rate: int
    tempo_bpm: float


def apply(desk: Desk, x: Stereo) -> tuple[Stereo, list[str]]:
    """The voice after its effects, and their names."""
    used: list[str] = []
    for effect, probability in _EFFECTS.items():
        if desk.rng.random() < probability:
            x = effect(desk, x)
            used.append(effect.__name__)
    space = list(_SPACES)[int(desk.rng.choice(len(_SPACES), p=list(_SPACES.values())))]
    return space(desk, x), [*used, space.__name__]


def equaliser(desk: Desk, x: Stereo) -> Stereo:
    """Rumble cut, six bands within about 5 dB, more presence than not."""
    rng = desk.rng
    curve = [(20.0, -30.0), (float(rng.uniform(60, 160)), 0.0)]
    means = {250.0: 0.0, 700.0: 0.5, 1800.0: 1.5, 3500.0: 2.5, 7000.0: 2.5, 14000.0: 1.5}
    curve += [(hz, float(rng.normal(mean, 3.5))) for hz, mean in means.items()]
    return dsp.equalise(x, desk.sample_rate, curve)


def telephone(desk: Desk, x: Stereo) -> Stereo:
    """A narrow band, distorted."""
    low, high = desk.rng.uniform(200, 600), desk.rng.uniform(2200, 4500)
    curve = [(low / 2, -30.0), (low, 0.0), (high, 3.0), (high * 1.6, -30.0)]
    return saturation(desk, dsp.equalise(x, desk.sample_rate, curve))


def compressor(desk: Desk, x: Stereo) -> Stereo:
    """One or two in a row."""
    for _ in range(int(desk.rng.integers(1, 3))):
        ratio, threshold = float(desk.rng.uniform(1.5, 8)), float(desk.rng.uniform(-12, 2))
        x = dsp.compress(x, desk.sample_rate, ratio, threshold)
    return x


def saturation(desk: Desk, x: Stereo) -> Stereo:
    """Tape, valve or clipped input stage: from warm to distorted."""
    drive = np.float32(np.exp(desk.rng.uniform(np.log(0.3), np.log(5.0))) / (4 * dsp.rms(x) + 1e-9))
    bias = np.float32(desk.rng.uniform(0, 0.3))
    return (np.tanh(x * drive + bias) - np.tanh(bias)) / drive


def doubling(desk: Desk, x: Stereo) -> Stereo:
    """Chorus: two copies of slowly changing delay, one on each side."""
    rng = desk.rng
    mono, n = dsp.mono(x), len(x)
    time = np.arange(n)
    out = x * np.float32(rng.uniform(0.4, 1.0))
    for side in range(2):
        late = rng.uniform(0.008, 0.03) * desk.sample_rate
        sway = rng.uniform(0.0005, 0.003) * desk.sample_rate
        hop = desk.sample_rate // 100
        track = dsp.smooth_noise(rng, n // hop + 2, desk.sample_rate / hop, rng.uniform(0.2, 1.5))
        delay = late + dsp.upsample(np.clip(track, -2, 2) * sway, hop, n)
        copy = np.interp(time - delay, time, mono, left=0.0)
        out[:, side] += np.float32(rng.uniform(0.3, 0.9)) * copy.astype(np.float32)
    return out


def delay(desk: Desk, x: Stereo) -> Stereo:
    """Repeats: a slap, or in time with the song; each duller, sides in turn."""
    rng = desk.rng
    slap = rng.random() < 0.4
    beats = float(rng.choice([0.5, 0.75, 1.0, 1.5]))
    seconds = rng.uniform(0.06, 0.14) if slap else beats * 60 / desk.tempo_bpm
    late = int(seconds * desk.sample_rate)
    gain, feedback = rng.uniform(0.1, 0.45), rng.uniform(0.2, 0.6)
    cut = float(rng.uniform(1800, 7000))
    curve = [(80.0, -12.0), (250.0, 0.0), (cut, 0.0), (2 * cut, -12.0)]
    out, echo = x.copy(), x
    for _ in range(1 if slap else 4):
        echo = dsp.equalise(echo[:, ::-1], desk.sample_rate, curve)
        echo = np.concatenate([np.zeros((late, 2), np.float32), echo])[: len(x)]
        out += echo * np.float32(gain)
        gain *= feedback
    return out


def dry(desk: Desk, x: Stereo) -> Stereo:
    """No space at all."""
    return x


def near_room(desk: Desk, x: Stereo) -> Stereo:
    """Early reflections and a short tail."""
    return _send(desk, x, _add(_reflections(desk), _room(desk, 0.2, 0.7)), -20.0, -8.0)


def plate(desk: Desk, x: Stereo) -> Stereo:
    """Dense and bright from the start."""
    rng, rate = desk.rng, desk.sample_rate
    n = int(rng.uniform(0.6, 2.2) * rate)
    fall = np.exp(-6.9 * np.arange(n) / n)
    bright = float(rng.uniform(6e3, 14e3))
    tail = np.stack([dsp.shaped_noise(rng, n, rate, 200.0, bright) * fall for _ in range(2)], 1)
    return _send(desk, x, _unit(_late(desk, tail, 0.04)), -22.0, -7.0)


def hall(desk: Desk, x: Stereo) -> Stereo:
    """A long tail behind the voice."""
    return _send(desk, x, _unit(_late(desk, _room(desk, 1.2, 2.5), 0.06)), -22.0, -6.0)


def gated(desk: Desk, x: Stereo) -> Stereo:
    """A tail that is cut before it has died away."""
    length = int(desk.rng.uniform(0.12, 0.35) * desk.sample_rate)
    impulse = _room(desk, 1.5, 2.5)[:length].copy()
    impulse[-(length // 8) :] *= dsp.fade(length // 8)[:, None]
    return _send(desk, x, _unit(impulse), -14.0, -3.0)


def far(desk: Desk, x: Stereo) -> Stereo:
    """Away from the microphone: more room than voice, dull."""
    cut = float(desk.rng.uniform(2500, 8000))
    curve = [(100.0, -6.0), (300.0, 0.0), (cut, 0.0), (2.5 * cut, -10.0)]
    dull = dsp.equalise(x, desk.sample_rate, curve)
    return _send(desk, dull, _add(_reflections(desk), _room(desk, 0.5, 1.8)), -4.0, 4.0)


_EFFECTS: dict[Callable[[Desk, Stereo], Stereo], float] = {
    equaliser: 0.75,
    telephone: 0.03,
    compressor: 0.65,
    saturation: 0.35,
    doubling: 0.2,
    delay: 0.25,
}
"""Chance of each, in their order."""

_SPACES: dict[Callable[[Desk, Stereo], Stereo], float] = {
    dry: 0.15,
    near_room: 0.3,
    plate: 0.22,
    hall: 0.18,
    gated: 0.05,
    far: 0.1,
}
"""One of these comes last."""


def _send(
    desk: Desk, x: Stereo, impulse: Float[np.ndarray, "tap 2"], low_db: float, high_db: float
) -> Stereo:
    """The voice and its reverberation, by an impulse response of unit energy, at a drawn level."""
    wet = dsp.db_to_gain(float(desk.rng.uniform(low_db, high_db)))
    return x + dsp.reverberate(x, impulse.astype(np.float32)) * np.float32(wet)


def _room(desk: Desk, shortest: float, longest: float) -> Float[np.ndarray, "tap 2"]:
    """A room with a reverberation time between the two, in seconds."""
    rng = desk.rng
    seconds, brightness = rng.uniform(shortest, longest), rng.uniform(1500, 7000)
    return dsp.room(rng, desk.sample_rate, float(seconds), float(brightness), 0.0)


def _reflections(desk: Desk) -> Float[np.ndarray, "tap 2"]:
    """Some early echoes, each from its own side."""
    count = int(desk.rng.integers(6, 20))
    impulse = np.zeros((int(0.06 * desk.sample_rate), 2))
    times = desk.rng.uniform(0.002, 0.06, count)
    gains = desk.rng.normal(0, 1, (count, 2)) * np.exp(-times / 0.03)[:, None]
    impulse[(times * desk.sample_rate).astype(int)] += gains
    return _unit(impulse)


def _late(desk: Desk, impulse: Float[np.ndarray, "tap 2"], most_seconds: float) -> Stereo:
    """The impulse response after a pre-delay."""
    silence = int(desk.rng.uniform(0, most_seconds) * desk.sample_rate)
    return np.pad(impulse, ((silence, 0), (0, 0)))


def _add(early: Float[np.ndarray, "early 2"], tail: Float[np.ndarray, "late 2"]) -> Stereo:
    """Both impulse responses as one of unit energy."""
    both = np.zeros((max(len(early), len(tail)), 2))
    both[: len(early)] += early
    both[: len(tail)] += tail
    return _unit(both)


def _unit(impulse: Float[np.ndarray, "tap 2"]) -> Float[np.ndarray, "tap 2"]:
    return impulse / np.sqrt(np.mean(np.sum(np.square(impulse), axis=0)))
