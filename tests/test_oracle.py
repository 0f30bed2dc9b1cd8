"""The ideal ratio mask: sums, exact cases, and tracks of any length."""

import numpy as np
import pytest
import scipy.signal

from diffsep_jax.evaluation import oracle
from diffsep_jax.evaluation.oracle import ideal_ratio_mask
from diffsep_jax.metrics import sdr

RATE = 8_000


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


def test_exact_where_the_stems_do_not_overlap():
    """In another channel, at another time, or at another frequency."""
    vocals, accompaniment = noise(30_000, 0), noise(30_000, 1)
    vocals[:, 1] = accompaniment[:, 0] = 0
    vocals[15_000:], accompaniment[:18_000] = 0, 0
    estimates = ideal_ratio_mask(vocals, accompaniment)
    np.testing.assert_allclose(estimates, [vocals, accompaniment], atol=1e-9)

    time = np.arange(30_000)[:, None] / RATE
    low, high = (np.sin(2 * np.pi * hz * time) * [1, 0.5] for hz in (500, 3_000))
    vocals, accompaniment = ideal_ratio_mask(low, high)
    assert sdr(low, vocals) > 40
    assert sdr(high, accompaniment) > 40


def test_a_louder_stem_takes_its_share():
    """Of two stems that differ by a gain g the mask is 1 / (1 + g), everywhere."""
    vocals = noise(10_000, 0)
    estimates = ideal_ratio_mask(vocals, 3.0 * vocals)
    np.testing.assert_allclose(estimates[0], vocals, atol=1e-9)
    np.testing.assert_allclose(estimates[1], 3.0 * vocals, atol=1e-9)


def test_silence_and_float32():
    silence = np.zeros((3_000, 2), np.float32)
    np.testing.assert_array_equal(ideal_ratio_mask(silence, silence), 0)
    estimates = ideal_ratio_mask(noise(3_000, 0).astype(np.float32), silence)
    assert [estimate.dtype for estimate in estimates] == [np.float32] * 2
    np.testing.assert_allclose(estimates[0], noise(3_000, 0), atol=1e-6)
