"""Tracks on which our BSS Eval is compared with museval's."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.signal
import soxr
from jaxtyping import Float32

from data_pipelines.embedded.excerpt import load_excerpt
from data_pipelines.embedded.songs import render_song
from diffsep_jax.evaluation.oracle import ideal_ratio_mask

Stems = Float32[np.ndarray, "2 time channel"]

SECONDS = 4.3


class Case(NamedTuple):
    """Vocals and accompaniment, and estimates of them.

    Attributes:
        singular: the normal equations are singular but for rounding, so that float64 does not
            determine the filters: museval's own scores change with the order of its sums.
    """

    name: str
    references: Stems
    estimates: Stems
    singular: bool = False


def cases(sample_rate: int, num_taps: int) -> Iterator[Case]:
    """All cases. The filters' length matters where an estimate is delayed or filtered."""
    yield from _music(sample_rate)
    yield from _noise(sample_rate, num_taps)


def _music(sample_rate: int) -> Iterator[Case]:
    excerpt = load_excerpt()
    stems = np.stack([excerpt.vocals, excerpt.accompaniment])
    real = np.stack([_resampled(stem, excerpt.sample_rate, sample_rate) for stem in stems])
    rng = np.random.default_rng(1)
    mixture = real.sum(axis=0)
    yield Case("real song, ratio mask", real, _masked(real))
    yield Case("real song, a tenth of the other stem", real, real + np.float32(0.1) * real[::-1])
    yield Case("real song, mixture as estimate", real, np.stack([mixture, mixture]))
    noise = rng.normal(0, 0.1, real.shape).astype(np.float32)
    yield Case("real song, noise added", real, real + noise)
    yield Case("real song, clipped", real, np.clip(real, -0.1, 0.1))
    for song in range(2):
        rendered = render_song(
            split="test", seed=0, song=song, seconds=SECONDS, sample_rate=sample_rate
        )[0]
        stems = rendered["audio"] * rendered["scale"]
        yield Case(f"embedded song {song}, ratio mask", stems, _masked(stems))
        coarse = np.round(64 * (stems + np.float32(0.2) * stems[::-1])) / np.float32(64)
        yield Case(f"embedded song {song}, leak and 7 bits", stems, coarse)


def _noise(sample_rate: int, num_taps: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    num_samples = int(SECONDS * sample_rate)
    stems = rng.normal(0, 0.1, (2, num_samples, 2)).astype(np.float32)
    other = rng.normal(0, 0.1, stems.shape).astype(np.float32)
    near = stems + np.float32(0.3) * other
    mixture = stems.sum(axis=0)
    second, half = slice(sample_rate, 2 * sample_rate), sample_rate // 2

    def edited(audio: Stems, edit: Callable[[Stems], None]) -> Stems:
        result = audio.copy()
        edit(result)
        return result

    def delayed(audio: Stems, samples: int) -> Stems:
        return np.pad(audio, ((0, 0), (samples, 0), (0, 0)))[:, :num_samples]

    def hard_panned(audio: Stems) -> None:
        audio[0, :, 1] = audio[1, :, 0] = 0

    def mono_vocals(audio: Stems) -> None:
        audio[0, :, 1] = audio[0, :, 0]

    def mono_stems(audio: Stems) -> None:
        audio[:, :, 1] = audio[:, :, 0]

    yield Case("noise", stems, near)
    yield Case("one channel", stems[..., :1], near[..., :1])
    yield Case("silent second of vocals", edited(stems, lambda s: s[0, second].fill(0)), near)
    yield Case("silent second of an estimate", stems, edited(near, lambda s: s[1, second].fill(0)))
    ended = [edited(audio, lambda s: s[0, -half:].fill(0)) for audio in (stems, near)]
    yield Case("silence at the end", ended[0], ended[1])
    yield Case("references hard-panned", edited(stems, hard_panned), near)
    yield Case("all hard-panned", edited(stems, hard_panned), edited(near, hard_panned))
    yield Case("vocals mono as stereo", edited(stems, mono_vocals), near)
    yield Case("references mono as stereo", edited(stems, mono_stems), near)
    yield Case("all mono as stereo", edited(stems, mono_stems), edited(near, mono_stems))
    yield Case("polarity inverted", stems, -near)
    yield Case("channels exchanged", stems, near[..., ::-1])
    yield Case("stems exchanged", stems, near[::-1])
    yield Case("delayed within the filters", stems, delayed(near, num_taps // 5))
    yield Case("delayed beyond the filters", stems, delayed(near, num_taps + num_taps // 2))
    yield Case("scaled by 0.01", stems, np.float32(0.01) * near)
    yield Case("scaled by 100", stems, np.float32(100) * near)
    yield Case("mixture as estimate", stems, np.stack([mixture, mixture]))
    yield Case("estimate equals reference", stems, stems.copy())
    yield Case("shorter than a window", stems[:, :half], near[:, :half])
    yield Case("as long as a window", stems[:, :sample_rate], near[:, :sample_rate])
    quiet = np.array([0.001, 1], np.float32)[:, None, None]
    yield Case("vocals 60 dB quieter", stems * quiet, near * quiet)
    low = scipy.signal.butter(4, 0.5, output="sos")
    yield Case("low-passed estimate", stems, _filtered(low, stems) + np.float32(0.01) * other)
    dull = _filtered(low, stems)
    yield Case("references without treble", dull, dull + np.float32(0.1) * other, singular=True)
    time = np.arange(num_samples)[:, None] / sample_rate
    frequencies = np.array([[440, 450], [540, 550]])[:, None, :]
    tones = np.sin(2 * np.pi * frequencies * time).astype(np.float32)
    yield Case("steady tones", tones, tones + np.float32(0.1) * other, singular=True)


def _resampled(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    return soxr.resample(audio, from_rate, to_rate)[: int(SECONDS * to_rate)]


def _masked(stems: np.ndarray) -> np.ndarray:
    return np.stack(ideal_ratio_mask(stems[0], stems[1]))


def _filtered(sections: np.ndarray, audio: np.ndarray) -> np.ndarray:
    return scipy.signal.sosfilt(sections, audio, axis=1).astype(np.float32)
