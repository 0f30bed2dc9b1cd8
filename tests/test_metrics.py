"""Measures of a track: formulas, closed forms, limits and what they refuse."""

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


def test_is_silent(reference):
    assert metrics.is_silent(np.zeros((10, 2), np.float32))
    assert metrics.is_silent(np.full((10, 2), 1e-5, np.float32))
    assert not metrics.is_silent(np.full((10, 2), 1e-4, np.float32))
    assert not metrics.is_silent(reference)


def test_bad_input_is_refused_in_one_line(reference):
    bad_estimates = {
        "the estimate's shape is": reference[:-1],
        r"\(50000, 1\)": reference[:, :1],  # would broadcast
        "the estimate has NaN or infinite": np.where(reference > 0.3, np.nan, reference),
        "the estimate has NaN or inf": np.where(reference > 0.3, np.inf, reference),
    }
    for message, estimate in bad_estimates.items():
        with pytest.raises(UserError, match=message) as caught:
            metrics.sdr(reference, estimate)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="the reference has NaN"):
        metrics.sdr(np.full_like(reference, np.nan), reference)
    with pytest.raises(UserError, match="expected at least one sample"):
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


def test_the_best_gain_is_the_best(reference):
    mixture = reference + np.random.default_rng(1).normal(0, 0.2, reference.shape)
    gain = metrics.best_gain(reference, mixture)
    best = metrics.sdr(reference, gain * mixture)
    assert best > max(0, metrics.sdr(reference, mixture))
    for other in (0.99 * gain, 1.01 * gain):
        assert metrics.sdr(reference, other * mixture) < best
    assert metrics.best_gain(reference, -2 * reference) == pytest.approx(-0.5)
    assert metrics.best_gain(reference, np.zeros_like(reference)) == 0


def by_hand(reference, estimate):
    """The distance from its definition: a loop over windows, channels and frames."""

    def magnitudes(audio, size):
        padded = np.concatenate([np.zeros(size // 2), audio, np.zeros(size)])
        starts = size // 4 * np.arange(1 + -(-len(audio) // (size // 4)))
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        spectra = [np.fft.rfft(window * padded[start : start + size]) for start in starts]
        return np.sqrt(np.maximum(np.abs(spectra) ** 2, 1e-8))

    found = []
    for size in (256, 512, 1024, 2048, 4096):
        for channel in range(reference.shape[1]):
            ours, theirs = (magnitudes(x[:, channel], size) for x in (reference, estimate))
            convergence = np.linalg.norm(ours - theirs) / np.linalg.norm(ours)
            found.append(convergence + np.mean(np.abs(np.log(ours) - np.log(theirs))))
    return np.mean(found)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_mr_stft_is_its_definition(reference, dtype, tolerance):
    estimate = 0.5 * reference + np.random.default_rng(1).normal(0, 0.05, reference.shape)
    estimate[30_000:40_000] = 0
    estimate[:, 1] *= 0.1
    reference, estimate = reference.astype(dtype), estimate.astype(dtype)
    for length in (50_000, 1_000, 1):
        both = reference[:length], estimate[:length]
        found = metrics.mr_stft(*both)
        assert type(found) is float
        expected = by_hand(*(audio.astype(np.float64) for audio in both))
        assert found == pytest.approx(expected, abs=tolerance)


def test_mr_stft_of_long_tracks(reference, monkeypatch):
    estimate = reference + np.float32(0.3) * reference[::-1]
    whole = metrics.mr_stft(reference, estimate)
    monkeypatch.setattr(metrics, "_SAMPLES_AT_ONCE", 10_000)
    assert metrics.mr_stft(reference, estimate) == pytest.approx(whole, abs=1e-12)


def test_level_hears_each_band_by_itself():
    """A tone in each band, each with a gain of its own."""
    times = np.arange(44100)[:, None] / 44100
    tones = [np.sin(2 * np.pi * hz * times) for hz in (300, 3000, 7000, 12_000)]
    gains = [2.0, 0.5, -0.1, 1.0]
    mixed = sum(gain * tone for gain, tone in zip(gains, tones, strict=True))
    levels = metrics.level_error_db(sum(tones), mixed, 44100)
    assert levels.keys() == metrics.BANDS.keys()
    assert list(levels.values()) == pytest.approx(20 * np.log10(np.abs(gains)), abs=0.01)


def test_level_where_there_is_nothing(reference):
    silence = np.zeros_like(reference)
    levels = metrics.level_error_db(reference, silence, 44100)
    assert list(levels.values()) == [-metrics.LIMIT_DB] * 4
    assert np.isnan(list(metrics.level_error_db(silence, reference, 44100).values())).all()
    # A rate of 22 kHz has nothing above 11.
    assert list(metrics.level_error_db(reference, reference, 22050)) == list(metrics.BANDS)[:3]


def test_leakage_is_of_the_passages_without_vocals(reference):
    """Of the mixture it is 0 dB; what is done where somebody sings plays no part."""
    vocals = reference.copy()
    vocals[20_000:] = 1e-5 * reference[20_000:]  # 80 dB below
    mixture = vocals + reference[::-1]
    assert metrics.leakage_db(vocals, mixture, mixture) == 0
    estimate = 0.1 * mixture
    estimate[:20_000] = 7.0
    assert metrics.leakage_db(vocals, mixture, estimate) == pytest.approx(-20, abs=1e-5)
    assert metrics.leakage_db(vocals, mixture, np.zeros_like(mixture)) == -metrics.LIMIT_DB
    louder = vocals.copy()
    louder[20_000:] *= 200  # 34 dB below: somebody sings
    assert np.isnan(metrics.leakage_db(louder, mixture, estimate))
    assert np.isnan(metrics.leakage_db(vocals[:2_000], mixture[:2_000], estimate[:2_000]))
    mixture[20_000:] = 0
    assert np.isnan(metrics.leakage_db(vocals, mixture, estimate))


@pytest.mark.parametrize("count", [2, 8])
def test_calibration_of_samples_of_the_posterior_is_1(count):
    """v = observation / 2 + noise: the posterior of a Gaussian, sampled, and sampled wrongly."""
    rng = np.random.default_rng(0)
    shape = 100_000, 2
    mean = 0.1 * rng.standard_normal(shape)
    vocals = mean + 0.05 * rng.standard_normal(shape)

    def found(spread):
        samples = [mean + spread * rng.standard_normal(shape) for _ in range(count)]
        return list(metrics.calibration(vocals, samples, 44100).values())

    assert found(0.05) == pytest.approx([1] * 4, abs=0.06)
    # With a variance of k^2: the mean errs by 1 + k^2 / n.
    for k in (0.5, 2.0):
        expected = (count + 1) / count * k**2 / (1 + k**2 / count)
        assert found(0.05 * k) == pytest.approx([expected] * 4, rel=0.06)
    assert found(0.0) == pytest.approx([0] * 4, abs=1e-20)


def test_calibration_needs_samples_and_an_error(reference):
    with pytest.raises(UserError, match="the number of samples is 1; expected at least 2"):
        metrics.calibration(reference, [reference], 44100)
    exact = metrics.calibration(reference, [reference, reference], 44100)
    assert np.isnan(list(exact.values())).all()


@pytest.mark.parametrize(
    "score",
    [
        metrics.si_sdr,
        metrics.mr_stft,
        lambda *both: metrics.level_error_db(*both, 44100),
        lambda vocals, estimate: metrics.leakage_db(vocals, vocals, estimate),
        lambda vocals, estimate: metrics.calibration(vocals, [vocals, estimate], 44100),
    ],
)
def test_the_other_scores_refuse_bad_input_too(reference, score):
    with pytest.raises(UserError, match="the estimate has NaN"):
        score(reference, np.full_like(reference, np.nan))
