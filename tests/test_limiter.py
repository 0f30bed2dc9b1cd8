"""The limit of vocals in quiet passages: what it changes, and that nothing else changes."""

import numpy as np
import pytest

from diffsep_jax.inference.limiter import LIMIT, limit, reach

RATE = 44_100
NO_DC = np.zeros(2, np.float32)


def noise(seed, num_frames=RATE):
    return np.random.default_rng(seed).normal(0, 0.1, (num_frames, 2)).astype(np.float32)


def limited(vocals, mixture, dc=NO_DC, cuts=(), rate=RATE):
    """(vocals, mixture) as a whole, from blocks that are cut at these samples."""
    pairs = zip(np.split(vocals, cuts), np.split(mixture, cuts), strict=True)
    blocks = zip(*limit(pairs, rate, dc), strict=True)
    return tuple(np.concatenate(stem) for stem in blocks)


def rms(audio):
    return float(np.sqrt(np.square(audio, dtype=np.float64).mean()))


def faded():
    """Vocals of one level over a mixture that is as loud for 0.5 s and then fades by 30 dB."""
    gain = 10 ** (-np.clip(np.arange(RATE) / RATE - 0.5, 0, None) * 3)[:, None]
    return noise(0), noise(1) * gain.astype(np.float32)


@pytest.mark.parametrize("rate", [1_000, 8_000, RATE, 192_000])
@pytest.mark.parametrize("ratio", [1.5, 30.0])
def test_louder_vocals_come_down_to_the_limit(ratio, rate):
    mixture = noise(0)
    vocals, same = limited(np.float32(ratio) * mixture, mixture, rate=rate)
    assert np.array_equal(same, mixture)
    np.testing.assert_allclose(vocals, LIMIT * mixture, rtol=1e-5)


def test_vocals_within_the_limit_stay_to_the_bit():
    vocals, mixture = faded()
    estimate, _ = limited(vocals, mixture)
    assert np.array_equal(estimate[: RATE // 2], vocals[: RATE // 2])
    assert rms(estimate[-2048:]) < 1.3 * rms(mixture[-2048:])
    quieter, _ = limited(mixture, vocals)
    assert np.array_equal(quieter, mixture)


def test_silence_in_the_mixture_silences_the_vocals():
    """But for 23 ms at its ends, into which the window of the sound reaches."""
    vocals, mixture = noise(0), noise(1)
    mixture[10_000:20_000] = 0.0
    estimate, _ = limited(vocals, mixture)
    far = reach(RATE)
    assert not estimate[10_000 + far : 20_000 - far].any()
    assert far < 0.025 * RATE
    assert np.array_equal(estimate[: 10_000 - far], vocals[: 10_000 - far])
    assert np.array_equal(estimate[20_000 + far :], vocals[20_000 + far :])


@pytest.mark.parametrize("num_cuts", [1, 10, 3000])
def test_blocks_make_no_difference_to_the_bit(num_cuts):
    vocals, mixture = faded()
    cuts = np.sort(np.random.default_rng(num_cuts).integers(0, RATE, num_cuts))
    for whole, part in zip(
        limited(vocals, mixture), limited(vocals, mixture, cuts=cuts), strict=True
    ):
        assert np.array_equal(part, whole)


@pytest.mark.parametrize("num_frames", [1, 2, 45, 1024, 5000])
def test_every_sample_is_returned_soon(num_frames):
    taken = returned = 0

    def blocks():
        nonlocal taken
        for start in range(0, num_frames, 100):
            assert taken - returned < 2 * reach(RATE) + 100
            block = noise(0, min(100, num_frames - start))
            taken += len(block)
            yield block, block

    for vocals, _ in limit(blocks(), RATE, NO_DC):
        returned += len(vocals)
    assert returned == num_frames


def test_dc_does_not_count_as_sound():
    vocals, mixture = faded()
    dc = np.array([0.5, -0.2], np.float32)
    shifted, _ = limited(vocals, mixture + dc, dc)
    np.testing.assert_allclose(shifted, limited(vocals, mixture)[0], atol=1e-6)


def test_mono():
    mixture = noise(0)[:, :1]
    vocals, _ = limited(3 * mixture, mixture, NO_DC[:1])
    np.testing.assert_allclose(vocals, LIMIT * mixture, rtol=1e-5)
