"""The ideal ratio mask: sums, exact cases, what alpha means, and tracks of any length."""

import numpy as np
import pytest
import scipy.signal

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import oracle
from diffsep_jax.evaluation.oracle import ideal_ratio_mask
from diffsep_jax.metrics import sdr

RATE = 8_000


def noise(num_samples, seed):
    return np.random.default_rng(seed).normal(0, 0.1, (num_samples, 2))


@pytest.mark.parametrize("alpha", [1, 2, 0.5])
@pytest.mark.parametrize("num_samples", [1, 1_000, 2_048, 5_000])
def test_estimates_add_up_to_the_mixture(alpha, num_samples):
    vocals, accompaniment = noise(num_samples, 0), noise(num_samples, 1)
    estimates = ideal_ratio_mask(vocals, accompaniment, alpha=alpha)
    # eps takes a share of very quiet bins.
    np.testing.assert_allclose(sum(estimates), vocals + accompaniment, atol=1e-7)
    for estimate in estimates:
        assert estimate.shape == vocals.shape
        assert estimate.dtype == vocals.dtype


def test_pieces_equal_one_transform(monkeypatch):
    vocals, accompaniment = noise(50_001, 0), noise(50_001, 1)
    whole = ideal_ratio_mask(vocals, accompaniment, alpha=1)
    monkeypatch.setattr(oracle, "_CHUNK", 8 * oracle.HOP)
    pieces = ideal_ratio_mask(vocals, accompaniment, alpha=1)
    np.testing.assert_allclose(pieces, whole, atol=1e-14)


def test_formula():
    vocals, accompaniment = noise(20_000, 0), noise(20_000, 1)

    def spectrum(audio):
        return scipy.signal.stft(audio.T, nperseg=2048)[2]

    for alpha in (1, 2):
        ratio = np.abs(spectrum(vocals)) ** alpha
        ratio /= ratio + np.abs(spectrum(accompaniment)) ** alpha + np.finfo(np.float64).eps
        masked = scipy.signal.istft(ratio * spectrum(vocals + accompaniment), nperseg=2048)[1].T
        estimate, _ = ideal_ratio_mask(vocals, accompaniment, alpha=alpha)
        np.testing.assert_allclose(estimate, masked[:20_000], atol=1e-14)


def test_exact_where_the_stems_do_not_overlap():
    """In another channel, at another time, or at another frequency."""
    vocals, accompaniment = noise(30_000, 0), noise(30_000, 1)
    vocals[:, 1] = accompaniment[:, 0] = 0
    vocals[15_000:], accompaniment[:18_000] = 0, 0
    estimates = ideal_ratio_mask(vocals, accompaniment, alpha=1)
    np.testing.assert_allclose(estimates, [vocals, accompaniment], atol=1e-9)

    time = np.arange(30_000)[:, None] / RATE
    low, high = (np.sin(2 * np.pi * hz * time) * [1, 0.5] for hz in (500, 3_000))
    vocals, accompaniment = ideal_ratio_mask(low, high, alpha=2)
    assert sdr(low, vocals) > 40
    assert sdr(high, accompaniment) > 40


def test_alpha():
    """Of two stems that differ by a gain g the mask is 1 / (1 + g^alpha), everywhere."""
    vocals = noise(10_000, 0)
    gain = 3.0
    for alpha in (1, 2, 0.5):
        estimates = ideal_ratio_mask(vocals, gain * vocals, alpha=alpha)
        share = (1 + gain) / (1 + gain**alpha)
        np.testing.assert_allclose(estimates[0], share * vocals, atol=1e-9)
        np.testing.assert_allclose(estimates[1], share * gain**alpha * vocals, atol=1e-9)


def test_silence_and_float32():
    silence = np.zeros((3_000, 2), np.float32)
    np.testing.assert_array_equal(ideal_ratio_mask(silence, silence, alpha=1), 0)
    estimates = ideal_ratio_mask(noise(3_000, 0).astype(np.float32), silence, alpha=1)
    assert [estimate.dtype for estimate in estimates] == [np.float32] * 2
    np.testing.assert_allclose(estimates[0], noise(3_000, 0), atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="one shape"):
        ideal_ratio_mask(noise(100, 0), noise(101, 1), alpha=1)
    for alpha in (0, -1.0, float("nan")):
        with pytest.raises(UserError, match="alpha="):
            ideal_ratio_mask(noise(100, 0), noise(100, 1), alpha=alpha)
