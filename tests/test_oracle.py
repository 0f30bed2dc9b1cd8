"""The ideal ratio mask: its sums, its formula, and tracks of any length."""

import numpy as np
import pytest
import scipy.signal

from diffsep_jax.evaluation import oracle
from diffsep_jax.evaluation.oracle import ideal_ratio_mask


def noise(num_samples, seed):
    return np.random.default_rng(seed).normal(0, 0.1, (num_samples, 2))


@pytest.mark.parametrize("num_samples", [1, 1_000, 4_096, 9_000])
def test_estimates_add_up_to_the_mixture(num_samples):
    vocals, accompaniment = noise(num_samples, 0), noise(num_samples, 1)
    estimates = ideal_ratio_mask(vocals, accompaniment)
    # eps takes a share of very quiet bins.
    np.testing.assert_allclose(sum(estimates), vocals + accompaniment, atol=1e-7)
    for estimate in estimates:
        assert estimate.shape == vocals.shape
        assert estimate.dtype == vocals.dtype


def test_pieces_equal_one_transform(monkeypatch):
    vocals, accompaniment = noise(50_001, 0), noise(50_001, 1)
    whole = ideal_ratio_mask(vocals, accompaniment)
    monkeypatch.setattr(oracle, "_CHUNK", 8 * oracle.HOP)
    pieces = ideal_ratio_mask(vocals, accompaniment)
    np.testing.assert_allclose(pieces, whole, atol=1e-14)


def test_formula():
    vocals, accompaniment = noise(20_000, 0), noise(20_000, 1)

    def spectrum(audio):
        return scipy.signal.stft(audio.T, nperseg=4096, noverlap=3072)[2]

    ratio = np.abs(spectrum(vocals))
    ratio /= ratio + np.abs(spectrum(accompaniment)) + np.finfo(np.float64).eps
    masked = ratio * spectrum(vocals + accompaniment)
    expected = scipy.signal.istft(masked, nperseg=4096, noverlap=3072)[1].T
    estimate, _ = ideal_ratio_mask(vocals, accompaniment)
    np.testing.assert_allclose(estimate, expected[:20_000], atol=1e-14)


def test_silence_and_float32():
    silence = np.zeros((3_000, 2), np.float32)
    np.testing.assert_array_equal(ideal_ratio_mask(silence, silence), 0)
    estimates = ideal_ratio_mask(noise(3_000, 0).astype(np.float32), silence)
    assert [estimate.dtype for estimate in estimates] == [np.float32] * 2
    np.testing.assert_allclose(estimates[0], noise(3_000, 0), atol=1e-6)
