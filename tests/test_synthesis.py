"""Embedded songs: pure functions of (split, seed, song), cached, and not separable by a trick."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.signal

from data_pipelines.dsp import midi_to_hz, modal, oscillate, phase_of, wavetables
from data_pipelines.embedded import songs as songs_module
from data_pipelines.source import ACTIVITY_BLOCK

RATE = 44100


def render(song: int, *, split: str = "train", seed: int = 0, seconds: float = 2.0):
    return songs_module.render_song(split=split, seed=seed, song=song, seconds=seconds)[0]


@pytest.fixture(scope="module")
def songs() -> list[np.ndarray]:
    """Six songs of ten seconds as float waveforms [stem, time, channel]."""
    rendered = [render(song, split="test", seconds=10.0) for song in range(6)]
    return [song["audio"] * song["scale"] for song in rendered]


def test_songs_seeds_and_splits_differ():
    reference = render(0)["audio"]
    for other in (
        render(1),
        render(0, seed=1),
        render(0, split="test"),
        render(0, split="validation"),
    ):
        assert other["audio"].shape == reference.shape
        correlation = np.corrcoef(other["audio"].ravel(), reference.ravel())[0, 1]
        assert abs(correlation) < 0.2


@pytest.mark.parametrize(("seconds", "rate"), [(0.05, 44100), (0.5, 8000), (0.5, 48000)])
def test_any_length_and_rate(seconds: float, rate: int):
    for song in range(3):
        rendered = songs_module.render_song(
            split="train", seed=0, song=song, seconds=seconds, sample_rate=rate
        )[0]
        assert rendered["audio"].shape == (2, round(seconds * rate), 2)
        assert np.abs(rendered["audio"]).max() > 1000


def test_levels(songs: list[np.ndarray]):
    for vocals, accompaniment in songs:
        mixture = vocals + accompaniment
        for stem in (vocals, accompaniment, mixture):
            assert np.isfinite(stem).all()
            assert np.abs(stem).max() <= 1.0
        assert 0.03 < mixture.std() < 0.25
        assert vocals.std() > 0.005
        assert accompaniment.std() > 0.01


def test_activity_is_the_vocals_rms_by_block():
    song = render(1)
    vocals = song["audio"][0].astype(np.float64) * song["scale"]
    expected = [
        np.sqrt(np.mean(vocals[start : start + ACTIVITY_BLOCK] ** 2))
        for start in range(0, len(vocals), ACTIVITY_BLOCK)
    ]
    np.testing.assert_allclose(song["activity"], expected, rtol=1e-4, atol=1e-7)
    assert song["activity"].max() > 0.01


def test_no_band_belongs_to_one_stem(songs: list[np.ndarray]):
    """In every octave from 60 Hz to 12 kHz both stems have energy, each leading somewhere."""
    edges = 60.0 * 2.0 ** np.arange(8.0)
    levels = np.zeros((len(songs), 2, len(edges) - 1))
    for i, stems in enumerate(songs):
        for j, stem in enumerate(stems):
            f, power = scipy.signal.welch(stem.mean(axis=1), RATE, nperseg=4096)
            for k, (low, high) in enumerate(itertools.pairwise(edges)):
                levels[i, j, k] = 10 * np.log10(power[(f >= low) & (f < high)].sum() + 1e-20)
    total = levels.max(axis=(1, 2), keepdims=True)
    present = (levels > total - 50).mean(axis=0)
    assert (present[1] >= 0.8).all(), present
    assert (present[0, 1:] >= 0.6).all(), present  # a voice's fundamental may lie above 120 Hz
    assert present[0, 0] > 0
    difference = levels[:, 0] - levels[:, 1]
    assert ((difference[:, 1:] < 0).any(axis=0)).all()
    assert (difference[:, 2:].max(axis=0) > -6).all()


def test_place_and_level_of_the_voice_vary(songs: list[np.ndarray]):
    """Neither cancelling the centre nor a fixed level finds the voice."""
    sides, ratios = [], []
    for vocals, accompaniment in songs:
        middle, side = vocals.mean(axis=1), (vocals[:, 0] - vocals[:, 1]) / 2
        sides.append(10 * np.log10(np.mean(side**2) / np.mean(middle**2)))
        ratios.append(20 * np.log10(vocals.std() / accompaniment.std()))
    assert min(sides) > -35
    assert max(sides) > -12
    assert max(ratios) - min(ratios) > 3
    assert -15 < np.median(ratios) < 3


def cached(cache_dir, seconds: float = 0.5) -> songs_module.EmbeddedSongs:
    return songs_module.EmbeddedSongs(num_songs=3, seconds=seconds, cache_dir=str(cache_dir))


def whole(source: songs_module.EmbeddedSongs) -> np.ndarray:
    """Both stems of song 2, in memory of their own."""
    return np.array(source.segment(2, 0, source.num_samples(2)))


def test_cache_gives_what_rendering_gives(tmp_path):
    direct = render(2, seconds=1.0)
    expected = direct["audio"] * direct["scale"]
    for _ in ("cold", "warm"):
        songs_module._open.cache_clear()
        source = cached(tmp_path, 1.0)
        np.testing.assert_array_equal(whole(source), expected)
        np.testing.assert_array_equal(source.activity(2), direct["activity"])
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_threads_may_ask_for_the_same_song(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: whole(cached(tmp_path)), range(4)))
    for audio in results[1:]:
        np.testing.assert_array_equal(audio, results[0])
    assert len(list(tmp_path.iterdir())) == 1


def test_modal_is_the_sum_of_decaying_cosines():
    f, decay = np.array([100.0, 1234.5]), np.array([0.1, 0.03])
    gain, phase = np.array([1.0, 0.5]), np.array([0.3, -1.0])
    t = np.arange(3000) / RATE
    expected = sum(
        gain[i] * np.exp(-t / decay[i]) * np.cos(2 * np.pi * f[i] * t + phase[i]) for i in range(2)
    )
    np.testing.assert_allclose(modal(f, decay, gain, phase, 3000, RATE), expected, atol=1e-5)


def test_oscillator_does_not_alias():
    """A sawtooth at 5 kHz holds its harmonics below Nyquist and nothing else."""
    hop, frames = 128, 128
    f0 = np.full(frames, 5000.0)
    n = hop * frames
    phase = phase_of(np.repeat(f0, hop), RATE)
    x = oscillate(wavetables(1 / np.arange(1.0, 201.0) + 0j), phase, f0, hop, RATE)
    power = np.abs(np.fft.rfft(x * np.hanning(n))) ** 2
    f = np.fft.rfftfreq(n, 1 / RATE)
    near = np.min(np.abs(f[:, None] - 5000.0 * np.arange(1, 5)), axis=1) < 50
    assert power[~near].sum() < 1e-4 * power.sum()
    assert midi_to_hz(69.0) == 440.0


EMBEDDED = {
    0: """
        0.00000 0.00000 0.00000 0.00000 0.00000 0.00000 0.00000 0.00000 0.00000 0.00000 -0.00021
        -0.05501 0.06980 -0.07857 -0.05186 -0.09197 -0.06037 0.16606 -0.06001 -0.19029 -0.04845
        -0.18134 0.07513 -0.03644 -0.00510 0.06780 -0.04463 0.07386 0.12506 -0.10813 -0.07292
        0.15122
        """,
    1: """
        0.01303 -0.03007 0.03931 -0.16449 -0.03338 -0.02583 -0.01870 0.01695 -0.06918 -0.01870
        -0.02685 -0.05608 -0.05769 -0.04514 -0.04978 -0.08365 -0.02999 -0.03823 -0.11280 -0.00256
        -0.00513 -0.00939 -0.05543 -0.01586 0.13831 0.00785 -0.04468 -0.04871 -0.00272 0.03243
        0.07654 0.08533
        """,
}
"""Of songs of 6 s: every 16,500th sample of each stem, the mean of its channels.

They may change when `songs.VERSION` goes up, and only then.
"""


@pytest.mark.parametrize("song", EMBEDDED)
def test_embedded_songs_stay_the_same(song):
    rendered = render(song, seconds=6.0)
    audio = (rendered["audio"].astype(np.float64) * rendered["scale"]).mean(axis=2)
    expected = np.array(EMBEDDED[song].split(), float)
    # Another numpy may change the last bits of a sample.
    np.testing.assert_allclose(audio[:, 8000::16500].ravel(), expected, atol=1e-4)
