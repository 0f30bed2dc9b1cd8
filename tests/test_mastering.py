"""Varispeed, tilt, saturation, limiter, low-pass and fade against their closed forms."""

import numpy as np
import pytest
import scipy.fft

from data_pipelines import dsp, mastering
from data_pipelines.mastering import MARGIN

RATE = 44_100
LENGTH = 33_792


def tone(hz: float, samples: int = LENGTH, first: float = 0.0) -> np.ndarray:
    """In time from `first` on, louder on the left."""
    wave = np.sin(2 * np.pi * hz * (first + np.arange(samples)) / RATE)
    return np.stack([0.5 * wave, 0.25 * wave], axis=1).astype(np.float32)


def noise(samples: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((samples, 2)).astype(np.float32)


def middle(audio: np.ndarray) -> np.ndarray:
    return audio[MARGIN:-MARGIN]


@pytest.mark.parametrize("length", [LENGTH, LENGTH - 2000, LENGTH - 333, LENGTH + 1, LENGTH + 2020])
@pytest.mark.parametrize("hz", [80.0, 441.0, 9_000.0])
def test_a_tone_played_faster_is_the_tone_of_the_higher_frequency(length: int, hz: float):
    """Sample by sample, so neither the level changes nor the place of anything."""
    factor = LENGTH / length
    played = mastering.resample(tone(hz), length)
    assert played.shape == (length, 2)
    assert played.dtype == np.float32
    np.testing.assert_allclose(middle(played), middle(tone(hz * factor, length)), atol=5e-4)


def test_what_would_be_beyond_half_the_rate_goes():
    played = mastering.resample(tone(21_500.0), int(LENGTH / 1.06))
    assert np.abs(middle(played)).max() < 1e-3


@pytest.mark.parametrize("samples", [1, 2, 3, 1000])
def test_any_length_and_silence_come_through(samples: int):
    for length in (1, 2, 7, 1000):
        assert np.isfinite(mastering.resample(noise(samples), length)).all()
        assert not mastering.resample(np.zeros((samples, 2), np.float32), length).any()


@pytest.mark.parametrize(("hz", "share"), [(100.0, -9 / 11), (1000.0, 0.0), (10_000.0, 9 / 11)])
@pytest.mark.parametrize("tilt_db", [-3.0, 2.0])
def test_the_tilt_turns_the_spectrum_about_1_khz(hz: float, share: float, tilt_db: float):
    tilted = mastering.resample(tone(hz), LENGTH, mastering.tilt(LENGTH, RATE, tilt_db))
    gain = dsp.rms(middle(tilted)) / dsp.rms(middle(tone(hz)))
    assert 20 * np.log10(gain) == pytest.approx(share * tilt_db, abs=0.02)


@pytest.mark.parametrize("cutoff", [3_500.0, 8_000.0, 16_000.0])
def test_the_low_pass_leaves_nothing_above_its_cutoff_and_all_below(cutoff: float):
    original = noise()
    passed = mastering.resample(original.copy(), LENGTH, mastering.low_pass(LENGTH, RATE, cutoff))
    window = np.hanning(LENGTH)[:, None]
    before, after = (np.abs(scipy.fft.rfft(window * x, axis=0)) for x in (original, passed))
    hz = scipy.fft.rfftfreq(LENGTH, 1 / RATE)
    above, below = hz > cutoff + 50, (hz > 50) & (hz < 0.9 * cutoff - 50)
    assert 20 * np.log10(dsp.rms(after[above]) / dsp.rms(before[above])) < -60
    # Only the faded ends make a difference below.
    np.testing.assert_allclose(dsp.rms(after[below]), dsp.rms(before[below]), rtol=1e-3)
    # Linear phase: what is low enough comes through in its place.
    kept = mastering.resample(tone(0.8 * cutoff), LENGTH, mastering.low_pass(LENGTH, RATE, cutoff))
    np.testing.assert_allclose(middle(kept), middle(tone(0.8 * cutoff)), atol=1e-3)


@pytest.mark.parametrize("drive_db", [0.0, 3.0, 8.0])
def test_saturation_keeps_the_level_and_rounds_the_peaks(drive_db: float):
    original = noise()
    driven = mastering.saturate(original.copy(), drive_db)
    assert dsp.rms(driven) == pytest.approx(dsp.rms(original), rel=1e-5)
    drive = 10 ** (drive_db / 20)
    # Peak over the gain of small samples: that of tanh.
    peak, small = np.abs(original).max(), np.abs(original) < 0.003
    gain = np.median(driven[small] / original[small])
    assert np.abs(driven).max() / (gain * peak) == pytest.approx(np.tanh(drive) / drive, rel=1e-3)
    silence = np.zeros((10, 2), np.float32)
    assert not mastering.saturate(silence, drive_db).any()


@pytest.mark.parametrize("samples", [1, 31, 32, 33, 1000, 50_000])
@pytest.mark.parametrize("drive_db", [0.0, 2.0, 8.0])
def test_no_peak_passes_the_limiter(samples: int, drive_db: float):
    mixture = noise(samples, seed=samples)
    mixture[samples // 2] *= 2.0
    gain = mastering.limiter_gain(mixture, RATE, drive_db)
    assert gain.shape == (samples,)
    assert gain.max() <= 1.0
    assert gain.min() == pytest.approx(10 ** (-drive_db / 20), rel=1e-5)
    ceiling = np.abs(mixture).max() * 10 ** (-drive_db / 20)
    assert np.abs(mixture * gain[:, None]).max() <= ceiling * (1 + 1e-6)


def test_the_limiter_acts_ahead_of_a_peak_and_recovers_slowly():
    click = np.full((44_100, 2), 0.1, np.float32)
    click[20_000] = 1.0
    gain_db = 20 * np.log10(mastering.limiter_gain(click, RATE, 6.0))
    # 6 dB at 1.6 dB a millisecond before it, and at 60 dB a second after it.
    assert gain_db[20_000] == pytest.approx(-6.0, abs=1e-3)
    assert gain_db[20_000 - 64 - round(0.006 / 1.6 * RATE)] == 0.0
    assert gain_db[20_000 + round(0.05 * RATE)] == pytest.approx(-3.0, abs=0.1)
    assert (gain_db[20_000 + 64 + round(0.1 * RATE) :] == 0.0).all()


def test_silence_is_not_limited():
    assert (mastering.limiter_gain(np.zeros((100, 2), np.float32), RATE, 8.0) == 1.0).all()


def test_a_fade_is_straight_in_decibels():
    gain_db = 20 * np.log10(mastering.fade(1001, -60.0, 0.0))
    np.testing.assert_allclose(gain_db, np.linspace(-60, 0, 1001), atol=1e-3)
