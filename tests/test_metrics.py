"""Utterance SDR, SI-SDR and log-spectral distance: formulas, limits and what they refuse."""

import numpy as np
import pytest

from diffsep_jax import metrics
from diffsep_jax.errors import UserError


@pytest.fixture
def reference():
    return np.random.default_rng(0).normal(0, 0.1, (50_000, 2)).astype(np.float32)


def test_formula(reference):
    estimate = reference + np.random.default_rng(1).normal(0, 0.03, reference.shape)
    estimate = estimate.astype(np.float32)
    signal = np.sum(np.float64(reference) ** 2)
    error = np.sum((np.float64(reference) - np.float64(estimate)) ** 2)
    expected = 10 * np.log10((signal + 1e-7) / (error + 1e-7))
    score = metrics.sdr(reference, estimate)
    assert type(score) is float
    assert score == pytest.approx(expected, abs=1e-12)


def test_closed_forms(reference):
    energy = np.sum(np.float64(reference) ** 2)
    assert metrics.sdr(reference, np.zeros_like(reference)) == 0
    assert metrics.sdr(reference, 0.5 * reference) == pytest.approx(20 * np.log10(2), abs=1e-6)
    assert metrics.sdr(reference, -reference) == pytest.approx(-20 * np.log10(2), abs=1e-6)
    assert metrics.sdr(reference, reference) == pytest.approx(10 * np.log10(energy / 1e-7 + 1))
    silence = np.zeros_like(reference)
    assert metrics.sdr(silence, silence) == 0
    assert metrics.sdr(silence, reference) == pytest.approx(-10 * np.log10(energy / 1e-7 + 1))


def test_one_ratio_over_time_and_channels(reference):
    """Errors in one channel or at one moment count by their energy, not by their place."""
    by_channel, by_time = reference.copy(), reference.copy()
    by_channel[:, 0] = 0
    by_time[: len(by_time) // 2] = 0
    for estimate in (by_channel, by_time):
        share = np.sum(np.float64(reference - estimate) ** 2) / np.sum(np.float64(reference) ** 2)
        assert metrics.sdr(reference, estimate) == pytest.approx(-10 * np.log10(share), abs=1e-6)


def test_sums_are_float64():
    # In float32, 16,777,216 + 1 is 16,777,216: a loud sample hides all that follow it.
    reference = np.ones((3_001, 1), np.float32)
    reference[0] = 4096
    estimate = np.zeros_like(reference)
    estimate[0] = 4096
    expected = 10 * np.log10((4096**2 + 3000) / 3000)
    assert metrics.sdr(reference, estimate) == pytest.approx(expected, abs=1e-9)


def test_is_silent(reference):
    assert metrics.is_silent(np.zeros((10, 2), np.float32))
    assert metrics.is_silent(np.full((10, 2), 1e-5, np.float32))
    assert not metrics.is_silent(np.full((10, 2), 1e-4, np.float32))
    assert not metrics.is_silent(reference)


def test_bad_input_is_refused_in_one_line(reference):
    bad_estimates = {
        "one shape": reference[:-1],
        r"\(50000, 1\)": reference[:, :1],  # would broadcast
        "the estimate holds NaN or infinite": np.where(reference > 0.3, np.nan, reference),
        "the estimate holds NaN or inf": np.where(reference > 0.3, np.inf, reference),
    }
    for message, estimate in bad_estimates.items():
        with pytest.raises(UserError, match=message) as caught:
            metrics.sdr(reference, estimate)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="the reference holds NaN"):
        metrics.sdr(np.full_like(reference, np.nan), reference)
    with pytest.raises(UserError, match="no samples"):
        metrics.sdr(np.zeros((0, 2)), np.zeros((0, 2)))


def test_si_sdr_closed_forms(reference):
    """Noise orthogonal to the reference counts; gain and polarity do not."""
    exact = np.float64(reference)
    noise = np.random.default_rng(1).normal(0, 0.03, reference.shape)
    noise -= exact * np.sum(noise * exact) / np.sum(exact**2)
    expected = 10 * np.log10(np.sum(exact**2) / np.sum(noise**2))
    for gain in (1.0, 0.01, -3.0, 1e3):
        score = metrics.si_sdr(exact, gain * (exact + noise))
        assert type(score) is float
        assert score == pytest.approx(expected, abs=1e-9)
    # Whatever is in it of the reference is signal: here half of each sample.
    assert metrics.si_sdr(exact, exact + 0.5 * exact + noise) == pytest.approx(
        expected + 20 * np.log10(1.5), abs=1e-9
    )


def test_si_sdr_has_one_scale_for_the_track(reference):
    """A channel or a passage that is louder than it should be is an error, unlike the whole."""
    louder_channel = reference * np.float32([2, 1])
    louder_passage = reference.copy()
    louder_passage[: len(reference) // 2] *= 2
    for estimate, part in (
        (louder_channel, np.s_[:, 0]),
        (louder_passage, np.s_[: len(reference) // 2]),
    ):
        # Of the energy a share p is doubled in amplitude.
        p = np.sum(np.float64(reference[part]) ** 2) / np.sum(np.float64(reference) ** 2)
        expected = 10 * np.log10((1 + p) ** 2 / (1 + 3 * p - (1 + p) ** 2))
        assert metrics.si_sdr(reference, estimate) == pytest.approx(expected, abs=1e-6)


def test_si_sdr_limits(reference):
    silence = np.zeros_like(reference)
    assert metrics.si_sdr(reference, reference) > 200
    assert metrics.si_sdr(reference, reference) <= metrics.LIMIT_DB
    assert metrics.si_sdr(reference, silence) == -metrics.LIMIT_DB
    assert np.isnan(metrics.si_sdr(silence, reference))


def test_log_spectral_distance_closed_forms(reference):
    """Of a gain it is the gain in dB, of a polarity nothing."""
    assert metrics.log_spectral_distance(reference, reference, 44100) == 0
    assert metrics.log_spectral_distance(reference, -reference, 44100) == 0
    for gain in (2.0, 0.5):
        distance = metrics.log_spectral_distance(reference, gain * reference, 44100)
        assert type(distance) is float
        assert distance == pytest.approx(20 * np.log10(2), abs=0.01)
    # Silence is 60 dB below the mean power, whose logarithm is, in noise, 2.5 dB above the mean's.
    distance = metrics.log_spectral_distance(reference, np.zeros_like(reference), 44100)
    assert distance == pytest.approx(60 - 2.5, abs=1)


def test_log_spectral_distance_formula(reference):
    estimate = reference + np.random.default_rng(1).normal(0, 0.1, reference.shape)

    def power(audio):
        padded = np.pad(audio, ((1024, 2048), (0, 0)))
        starts = range(0, len(audio) + 511, 512)
        frames = np.stack([padded[start : start + 2048] for start in starts], dtype=np.float64)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
        return np.abs(np.fft.rfft(frames * window[:, None], axis=1)) ** 2

    floor = 1e-6 * power(reference).mean()
    ratio = (power(reference) + floor) / (power(estimate) + floor)
    expected = np.sqrt(np.mean((10 * np.log10(ratio)) ** 2, axis=1)).mean()
    assert metrics.log_spectral_distance(reference, estimate, 44100) == pytest.approx(expected)


def test_log_spectral_distance_in_silence(reference):
    """Silent frames count by what the estimate has there above 60 dB below the reference's mean."""
    half_silent, noise = reference.copy(), np.zeros_like(reference)
    half_silent[25_000:] = 0
    noise[25_000:] = reference[25_000:]
    assert metrics.log_spectral_distance(half_silent, half_silent, 44100) == 0
    distances = [
        metrics.log_spectral_distance(half_silent, half_silent + gain * noise, 44100)
        for gain in np.float32([1e-5, 0.01, 0.1, 1])
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.1
    assert distances[1] == pytest.approx(0.5 * 20, abs=1)
    assert distances[3] == pytest.approx(0.5 * 60, abs=2)
    assert np.isnan(metrics.log_spectral_distance(np.zeros_like(reference), reference, 44100))


def test_log_spectral_distance_of_long_tracks_and_other_rates(reference, monkeypatch):
    estimate = reference + np.float32(0.3) * reference[::-1]
    whole = metrics.log_spectral_distance(reference, estimate, 44100)
    monkeypatch.setattr(metrics, "_FRAMES_AT_ONCE", 7)
    assert metrics.log_spectral_distance(reference, estimate, 44100) == pytest.approx(whole)
    # Twice the rate, twice the frame: noise is noise, at any rate.
    other = metrics.log_spectral_distance(reference, estimate, 22050)
    assert other == pytest.approx(whole, rel=0.05)
    assert np.isfinite(metrics.log_spectral_distance(reference[:1], estimate[:1], 44100))
    with pytest.raises(UserError, match="sample rate of 40 Hz"):
        metrics.log_spectral_distance(reference, estimate, 40)


@pytest.mark.parametrize(
    "score", [metrics.si_sdr, lambda *a: metrics.log_spectral_distance(*a, 8000)]
)
def test_the_other_scores_refuse_bad_input_too(reference, score):
    with pytest.raises(UserError, match="one shape"):
        score(reference, reference[:-1])
    with pytest.raises(UserError, match="the estimate holds NaN"):
        score(reference, np.full_like(reference, np.nan))
    with pytest.raises(UserError, match="no samples"):
        score(np.zeros((0, 2)), np.zeros((0, 2)))
