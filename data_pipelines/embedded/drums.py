"""The drummer: patterns and fills over one-shot sounds of several designs."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono, Stereo
from data_pipelines.embedded.composition import Composition

# Patterns over sixteen sixteenths; in twelve-step bars they are cut.
_KICKS = (
    "x.......x.......",
    "x...x...x...x...",
    "x.....x.x.......",
    "x..x....x.x.....",
    "x.....x...x.....",
    "x.x.......xx....",
    "x.........x..x..",
    "x..x..x...x..x..",
)
_SNARES = (
    "....x.......x...",
    "....x.......x..o",
    "....x..o.o..x...",
    "........x.......",
    "....x.......x...",
    "............x...",
)
_HATS = (
    "x.x.x.x.x.x.x.x.",
    "xoxoxoxoxoxoxoxo",
    "..x...x...x...x.",
    "x...x...x...x...",
    "x.xxx.xxx.xxx.xx",
    "x.ox.ox.ox.ox.o.",
)


_DrumMaker = Callable[[Generator, Generator, int], Mono]
"""From the generator of the design, that of the noise in it, and the sample rate."""


def drum_track(rng: Generator, score: Composition, n: int, sample_rate: int) -> Stereo:
    """Renders the drums of a whole song, stereo and dry."""
    kit = {
        "kick": [_kick(rng, sample_rate)],
        "snare": _variants(rng, _snare if rng.random() < 0.75 else _clap, sample_rate, 3),
        "hat": _variants(rng, _hat, sample_rate, 4),
        "open": [_cymbal(rng, sample_rate, 0.5)],
        "crash": [_cymbal(rng, sample_rate, 1.8)],
        "shaker": _variants(rng, _shaker, sample_rate, 2),
        "tom": [_tom(rng, sample_rate, hz) for hz in (rng.uniform(170, 220), 130.0, 85.0)],
    }
    width = float(rng.choice([0.0, 0.3, 0.7]))
    place = {"kick": 0.0, "snare": rng.normal(0, 0.1), "hat": rng.choice([-1, 1]) * width * 0.7}
    place |= {"open": place["hat"], "crash": -place["hat"], "shaker": rng.uniform(-1, 1) * width}
    level = {"kick": 1.0, "snare": rng.uniform(0.6, 1.0), "hat": rng.uniform(0.12, 0.4), "tom": 0.8}
    level |= {"open": level["hat"] * 0.9, "crash": rng.uniform(0.2, 0.45)}
    level["shaker"] = rng.uniform(0.08, 0.25)
    track = np.zeros((n, 2), np.float32)
    human = float(rng.uniform(0.0, 0.008))

    def hit(name: str, time: float, velocity: float, variant: int | None = None) -> None:
        sounds = kit[name]
        sound = sounds[int(rng.integers(len(sounds))) if variant is None else variant]
        position = place.get(name, 0.0) if variant is None else width * (variant - 1)
        gain = level[name] * velocity * float(rng.uniform(0.85, 1.1))
        start = int((time + abs(rng.normal(0, human))) * sample_rate)
        dsp.place(track, dsp.pan(sound * np.float32(gain), float(np.clip(position, -1, 1))), start)

    grooves = [[str(rng.choice(p)) for p in (_KICKS, _SNARES, _HATS)] for _ in range(2)]
    shaker = rng.random() < 0.3
    bars = len(score.chords)
    for bar in range(bars):
        section = score.section_of(bar)
        if not section.drums:
            continue
        kick, snare, hats = grooves[int(section.energy > 0.7)]
        last = bar == section.first_bar + section.bars - 1
        fill_from = score.steps - int(rng.choice([4, 8])) if last and rng.random() < 0.5 else 99
        if bar == section.first_bar and rng.random() < 0.7:
            hit("crash", score.time(bar, 0), 1.0)
        for step in range(score.steps):
            time = score.time(bar, step)
            if time >= score.seconds:
                break
            if step >= fill_from:
                if rng.random() < 0.8:
                    hit("tom", time, rng.uniform(0.5, 1), min(2, (step - fill_from) * 3 // 4))
                continue
            if kick[step] == "x":
                hit("kick", time, 1.0)
            if snare[step] != ".":
                hit("snare", time, 1.0 if snare[step] == "x" else 0.25)
            if hats[step] != "." and section.energy > 0.3:
                opened = step == score.steps - 2 and rng.random() < 0.3
                hit("open" if opened else "hat", time, 1.0 if hats[step] == "x" else 0.5)
            if shaker:
                hit("shaker", time, 1.0 if step % 4 == 2 else 0.5)
    return track


def _variants(rng: Generator, make: _DrumMaker, sample_rate: int, count: int) -> list[Mono]:
    """Several renderings of one design, so that no two hits are the same."""
    design = rng.integers(2**63)
    return [make(np.random.default_rng([design]), rng, sample_rate) for _ in range(count)]


def _kick(rng: Generator, sample_rate: int) -> Mono:
    """A falling sine with a click; from a dry rock kick to a long synthetic boom."""
    seconds = float(rng.choice([0.25, 0.35, 0.9]))
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    low, sweep = rng.uniform(42, 65), rng.uniform(60, 300)
    f = low + sweep * np.exp(-t / rng.uniform(0.01, 0.04))
    x = np.sin(2 * np.pi * np.cumsum(f) / sample_rate) * np.exp(-t / (seconds / 4.5))
    x = x.astype(np.float32)
    click = dsp.shaped_noise(rng, len(t), sample_rate, 1500.0, rng.uniform(3000, 8000))
    x += click * (rng.uniform(0.05, 0.4) * np.exp(-t / 0.004)).astype(np.float32)
    return np.tanh(x * np.float32(rng.uniform(1.0, 2.5)))


def _snare(rng: Generator, noise_rng: Generator, sample_rate: int) -> Mono:
    """Two shell modes and rattling wires."""
    tune, decay = rng.uniform(160, 240), rng.uniform(0.05, 0.16)
    brightness, wires = rng.uniform(5000, 12000), rng.uniform(0.3, 0.8)
    n = int(0.45 * sample_rate)
    t = np.arange(n, dtype=np.float32) / sample_rate
    f = tune * np.array([1.0, 1.59, 2.14, 2.65])
    gains = np.array([0.6, 0.45, 0.2, 0.15])
    shell = dsp.modal(f, np.full(4, decay * 0.8), gains, np.full(4, -1.5), n, sample_rate)
    noise = dsp.shaped_noise(noise_rng, n, sample_rate, 900.0, brightness, 1.5)
    return shell + noise * np.exp(-t / np.float32(decay)) * np.float32(wires)


def _clap(rng: Generator, noise_rng: Generator, sample_rate: int) -> Mono:
    """Three short bursts and a tail of band noise."""
    low = rng.uniform(700, 1200)
    n = int(0.35 * sample_rate)
    t = np.arange(n) / sample_rate
    envelope = 0.7 * np.exp(-t / rng.uniform(0.04, 0.1))
    for start in (0.0, 0.011, 0.023):
        envelope += np.where(t >= start, np.exp(-np.maximum(t - start, 0) / 0.004), 0)
    noise = dsp.shaped_noise(noise_rng, n, sample_rate, low, low * 4, 3.0)
    return noise * (0.5 * envelope).astype(np.float32)


def _metal(
    rng: Generator, noise_rng: Generator, n: int, sample_rate: int, low_hz: float, decay: float
) -> Mono:
    """Dense inharmonic modes over noise, as in hats and cymbals."""
    f = np.exp(rng.uniform(np.log(low_hz), np.log(15000), 120))
    gains = rng.uniform(0.2, 1.0, 120) * 0.12
    decays = decay * rng.uniform(0.4, 1.0, 120) * (low_hz / f) ** 0.3
    ring = dsp.modal(f, decays, gains, rng.uniform(0, 6.28, 120), n, sample_rate)
    t = np.arange(n, dtype=np.float32) / sample_rate
    noise = dsp.shaped_noise(noise_rng, n, sample_rate, low_hz * 1.5, 14000.0)
    return ring + noise * np.exp(-t / np.float32(decay * 0.6)) * np.float32(rng.uniform(0.3, 0.9))


def _hat(rng: Generator, noise_rng: Generator, sample_rate: int) -> Mono:
    """Closed hi-hat."""
    decay, low = rng.uniform(0.02, 0.07), rng.uniform(3500, 7000)
    n = int(0.15 * sample_rate)
    return _metal(rng, noise_rng, n, sample_rate, low, decay)


def _cymbal(rng: Generator, sample_rate: int, seconds: float) -> Mono:
    """Open hat or crash."""
    n = int(seconds * sample_rate)
    x = _metal(rng, rng, n, sample_rate, rng.uniform(400, 2500.0), seconds / 3)
    x[n - n // 4 :] *= dsp.fade(n // 4)
    return x


def _shaker(rng: Generator, noise_rng: Generator, sample_rate: int) -> Mono:
    """Shaker or tambourine: noise that swells and dies."""
    n = int(0.12 * sample_rate)
    low = rng.uniform(3000, 7000)
    noise = dsp.shaped_noise(noise_rng, n, sample_rate, low, 13000.0)
    return noise * np.hanning(n).astype(np.float32) ** 2


def _tom(rng: Generator, sample_rate: int, hz: float) -> Mono:
    """Tom: a sine that falls a little, with a stick."""
    n = int(0.6 * sample_rate)
    t = np.arange(n) / sample_rate
    f = hz * (1 + 0.4 * np.exp(-t / 0.05))
    x = (np.sin(2 * np.pi * np.cumsum(f) / sample_rate) * np.exp(-t / 0.15)).astype(np.float32)
    stick = dsp.shaped_noise(rng, n, sample_rate, 800.0, 4000.0)
    return x + stick * (0.2 * np.exp(-t / 0.01)).astype(np.float32)
