"""Positional white noise and the high-pass filter: agreement, moments, scipy's Butterworth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from diffsep_jax import noise

KEY = jax.random.key(0)
white_noise = jax.jit(noise.white_noise, static_argnames=("length", "channels"))
high_pass_gain = jax.jit(noise.high_pass_gain, static_argnums=(1, 2))
high_pass = jax.jit(noise.high_pass, static_argnums=2)


def draw(*starts, key=KEY, step=0, length=3000):
    start = jnp.array(starts, jnp.int32)
    return np.asarray(white_noise(key, step, start, length=length, channels=2))


# Block edges are at multiples of 1,024; the last is an hour and a half into a track.
@pytest.mark.parametrize("start", [0, 1, 511, 1023, 1024, 1025, 2047, 250_000_007])
@pytest.mark.parametrize("hop", [0, 1, 1023, 1024, 1500, 2999])
def test_overlapping_chunks_hold_the_same_noise(start, hop):
    first, second = draw(start, start + hop)
    np.testing.assert_array_equal(first[hop:], second[: 3000 - hop])


@pytest.mark.parametrize("length", [1, 2, 1024, 1025, 1026, 2049])
def test_every_length_is_a_slice_of_one_track(length):
    track = draw(0, length=8192)[0]
    starts = (0, 1, 1022, 1023, 1024, 3333)
    chunks = draw(*starts, length=length)
    assert chunks.shape == (6, length, 2)
    for chunk, start in zip(chunks, starts, strict=True):
        np.testing.assert_array_equal(chunk, track[start : start + length])


def test_standard_normal():
    samples = draw(0, length=100_000)[0]
    assert samples.dtype == np.float32
    assert scipy.stats.kstest(samples.ravel(), "norm").pvalue > 1e-3
    assert abs(samples.mean()) < 5 / np.sqrt(samples.size)
    assert abs(samples.var() - 1) < 5 * np.sqrt(2 / samples.size)


def test_channels_times_steps_and_seeds_are_independent():
    length = 100_000
    base = draw(0, length=length)[0]
    next_step = draw(0, length=length, step=1)[0]
    others = {
        "channel": base[:, ::-1],
        "next sample": np.roll(base, 1, axis=0),
        "next block": np.roll(base, 1024, axis=0),
        "next step": next_step,
        "next seed": draw(0, length=length, key=jax.random.key(1))[0],
        "step and block exchanged": np.roll(next_step, 1024, axis=0),
    }
    for name, other in others.items():
        assert abs(np.mean(base * other)) < 5 / np.sqrt(length), name


CASES = [
    (20.0, 44100, 4096),
    (600.0, 44100, 4096),
    (5000.0, 44100, 131072),
    (5000.0, 44100, 4095),
    (21000.0, 44100, 2048),
    (2000.0, 16000, 1001),
    (0.5, 48000, 1024),
    (23999.0, 48000, 1024),
]


@pytest.mark.parametrize(("cutoff_hz", "sample_rate", "length"), CASES)
def test_gain_is_the_butterworth_magnitude_at_unit_variance(cutoff_hz, sample_rate, length):
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    sos = scipy.signal.butter(4, cutoff_hz, "highpass", fs=sample_rate, output="sos")
    _, response = scipy.signal.sosfreqz(sos, worN=frequencies, fs=sample_rate)
    two_sided = np.abs(np.fft.fft(np.fft.irfft(np.abs(response), length)))
    expected = np.abs(response) / np.sqrt(np.mean(two_sided**2))
    gain = high_pass_gain(cutoff_hz, length, sample_rate)
    assert gain.dtype == jnp.float32
    np.testing.assert_allclose(gain, expected, rtol=2e-4, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 1001])
def test_gain_without_cutoff_is_one(length):
    for cutoff_hz in (0.0, -1.0):
        gain = high_pass_gain(cutoff_hz, length, 44100)
        np.testing.assert_array_equal(gain, np.ones(length // 2 + 1))


def test_gain_holds_no_nan_on_the_way():
    with jax.debug_nans(True):
        for cutoff_hz in (0.0, 5000.0):
            noise.high_pass_gain(cutoff_hz, 64, 44100)


def test_one_program_serves_all_cutoffs_and_all_are_finite():
    compiled = jax.jit(lambda cutoff_hz: noise.high_pass_gain(cutoff_hz, 4096, 44100))
    for cutoff_hz in (0.0, 1e-3, 1.0, 100.0, 5000.0, 22049.0, 22049.99):
        gain = np.asarray(compiled(cutoff_hz))
        assert np.isfinite(gain).all()
        assert (gain >= 0).all()
        energy = (2 * np.sum(np.float64(gain) ** 2) - gain[0] ** 2 - gain[-1] ** 2) / 4096
        assert energy == pytest.approx(1, abs=1e-5)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("length", [8192, 8191])
@pytest.mark.parametrize("cutoff_hz", [0.0, 600.0, 5000.0, 20000.0])
def test_filtered_noise_has_unit_variance_and_the_filter_s_spectrum(cutoff_hz, length):
    white = np.random.default_rng(0).standard_normal((16, length, 2), np.float32)
    filtered = np.asarray(high_pass(jnp.asarray(white), cutoff_hz, 44100))
    assert filtered.dtype == np.float32
    gain = np.asarray(high_pass_gain(cutoff_hz, length, 44100), np.float64)
    expected = np.fft.irfft(np.fft.rfft(white, axis=1) * gain[:, None], length, axis=1)
    np.testing.assert_allclose(filtered, expected, atol=1e-5)
    # The band that passes holds (1 - cutoff / Nyquist) of the degrees of freedom.
    deviation = np.sqrt(2 / (white.size * (1 - cutoff_hz / 22050)))
    assert abs(filtered.var() - 1) < 5 * deviation


def test_filtered_chunks_agree_where_they_overlap():
    """The filter is circular, but reaches only some 100 samples: inside, chunks still agree."""
    first, second = high_pass(jnp.asarray(draw(0, 1000)), 5000.0, 44100)
    np.testing.assert_allclose(first[1500:-500], second[500:-1500], atol=1e-4)


@pytest.mark.parametrize("frequency", [300.0, 5000.0])
def test_a_crossover_keeps_one_input_below_and_the_other_above(frequency):
    rate, length = 44_100, 44_100
    low, high = jax.random.normal(KEY, (2, 1, length, 2))
    joined = jax.jit(noise.crossover, static_argnums=3)(low, high, frequency, rate)
    hertz = np.fft.rfftfreq(length, 1 / rate)
    ours, below, above = (np.fft.rfft(x, axis=1)[0] for x in (joined, low, high))
    sixth = 2 ** (1 / 6)
    for part, source in ((hertz < frequency / sixth, below), (hertz > frequency * sixth, above)):
        np.testing.assert_allclose(ours[part], source[part], atol=0.01)
    middle = np.flatnonzero(hertz == frequency)
    np.testing.assert_allclose(ours[middle], (below[middle] + above[middle]) / 2, atol=0.01)
    np.testing.assert_array_equal(noise.crossover(low, low, frequency, rate), low)
