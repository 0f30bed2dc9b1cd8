"""Utterance SDR: the formula, its limits and what it refuses."""

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
