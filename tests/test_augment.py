"""Augmentations: whatever their settings, a pair of stems stays a pair of its songs and places."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ramps import Ramps

from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig, augment
from data_pipelines.pitch import shift_pitch
from data_pipelines.segments import Segment
from diffsep_jax.errors import UserError

RATE = 44100
TESTS = pathlib.Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}

probability = st.sampled_from([0.0, 0.3, 1.0])


def ranges(limit: float) -> st.SearchStrategy[tuple[float, float]]:
    pair = st.tuples(st.floats(-limit, limit), st.floats(-limit, limit))
    return pair.map(lambda ends: (min(ends), max(ends)))


configs = st.builds(
    AugmentConfig,
    polarity_probability=probability,
    channel_flip_probability=probability,
    remix_probability=probability,
    pitch_probability=probability,
    pitch_semitones=ranges(12.0),
    gain_db=ranges(60.0),
)


def examples(augmentation: AugmentConfig, segment: int, index: int, seed: int = 0):
    config = pipeline.PipelineConfig(batch_size=1, seed=seed, augment=augmentation)
    return pipeline.example(Ramps(), config, segment, index)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(configs, st.sampled_from([1, 1000, 8192]), st.integers(0, 2**40), st.integers(0, 3))
def test_whatever_the_settings_an_example_is_a_sum_of_two_finite_stems(
    augmentation: AugmentConfig, segment: int, index: int, seed: int
):
    example = examples(augmentation, segment, index, seed)
    for value in example.values():
        assert value.shape == (segment, 2)
        assert value.dtype == np.float32
        assert value.flags.c_contiguous
        assert np.isfinite(value).all()
    again = examples(augmentation, segment, index, seed)
    for name, value in example.items():
        np.testing.assert_array_equal(value, again[name])
    # The band is what was added to the vocals, to one rounding of the mixture.
    mixture, vocals = example["mixture"], example["vocals"]
    np.testing.assert_array_equal(vocals + (mixture - vocals), mixture)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(configs, st.integers(0, 2**40))
def test_whatever_the_settings_both_stems_are_of_one_song_and_place_or_the_remix_of_two(
    augmentation: AugmentConfig, index: int
):
    """Up to signs, channels and gains in range: all but the pitch shift, which has its own test.

    The plain example of the same number tells song and place; the remix takes another band, and
    the same one whatever else is done.
    """
    augmentation = dataclasses.replace(augmentation, pitch_probability=0.0)
    changed = examples(augmentation, 1000, index)
    low, high = (10 ** (db / 20) for db in augmentation.gain_db)

    def is_changed(stem: np.ndarray, original: np.ndarray, rounding: float) -> bool:
        for channels in (original, original[:, ::-1]):
            gain = np.vdot(stem, channels) / np.vdot(channels, channels)
            within = low * 0.999 <= abs(gain) <= high * 1.001
            if within and np.abs(stem - gain * channels).max() <= rounding:
                return True
        return False

    bands = {}
    for remix in (0.0, 1.0):
        plain = examples(dataclasses.replace(NO_AUGMENTATION, remix_probability=remix), 1000, index)
        bands[remix] = plain["mixture"] - plain["vocals"]
    certain = bands.get(augmentation.remix_probability)
    allowed = bands.values() if certain is None else [certain]
    rounding = 1e-6 * float(np.abs(changed["mixture"]).max() + np.abs(changed["vocals"]).max())
    band = changed["mixture"] - changed["vocals"]
    assert any(is_changed(band, original, rounding) for original in allowed)
    if plain["vocals"].any():
        assert is_changed(changed["vocals"], plain["vocals"], rounding)
    else:
        assert not changed["vocals"].any()


def test_every_augmentation_keeps_the_stems_apart():
    """Each stem is the source's, up to a sign, an order of channels and a gain in range."""
    config = AugmentConfig(gain_db=(-6.0, 2.0), pitch_probability=0.0)
    rng = np.random.default_rng(0)
    stem = rng.standard_normal((100, 2)).astype(np.float32)
    seen = set()
    for seed in range(60):
        stems = Segment(stem.copy(), stem.copy())
        pair = augment(np.random.default_rng(seed), stems, config, RATE)
        kinds = []
        for changed in pair:
            flipped = abs(np.corrcoef(changed[:, 0], stem[:, 1])[0, 1]) > 0.9
            original = stem[:, ::-1] if flipped else stem
            gain = changed[0, 0] / original[0, 0]
            np.testing.assert_allclose(changed, original * gain, rtol=1e-5)
            assert -6.001 <= 20 * np.log10(abs(gain)) <= 2.001
            kinds.append((flipped, bool(gain < 0)))
        seen.add(tuple(kinds))
    assert len(seen) == 16  # flips and signs are drawn for each stem on its own


def test_augmentations_are_off_at_zero():
    stem = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    stems = Segment(stem.copy(), stem.copy())
    for changed in augment(np.random.default_rng(1), stems, NO_AUGMENTATION, RATE):
        np.testing.assert_array_equal(changed, stem)


def tone(hz: float, samples: int = 65_536) -> np.ndarray:
    wave = np.sin(2 * np.pi * hz * np.arange(samples) / RATE)
    return np.stack([0.5 * wave, 0.25 * wave], axis=1).astype(np.float32)


def pitch(audio: np.ndarray) -> float:
    """Frequency in Hz of a tone's middle, from how far its phase goes from one half to the next."""
    middle = audio[8192:-8192, 0].astype(np.float64)
    half = len(middle) // 2
    window = np.hanning(half)
    first, second = (np.fft.rfft(window * part) for part in (middle[:half], middle[half:]))
    peak = int(np.argmax(np.abs(first)))
    turns = np.angle(second[peak] / first[peak]) / (2 * np.pi)
    whole = round(peak - turns)
    return (whole + turns) * RATE / half


@pytest.mark.parametrize("semitones", [-7.0, -2.0, -0.3, 0.0, 1.5, 12.0])
def test_a_tone_moves_by_the_interval_and_keeps_its_length_and_level(semitones: float):
    original = tone(440.0)
    shifted = shift_pitch(original, semitones, RATE)
    assert shifted.shape == original.shape
    assert shifted.dtype == np.float32
    assert 12 * np.log2(pitch(shifted) / 440.0) == pytest.approx(semitones, abs=0.1)
    np.testing.assert_allclose(shifted.std(axis=0), original.std(axis=0), rtol=0.1)


def test_a_shifted_sound_stays_in_its_place():
    """Vocals and accompaniment of a shifted pair are in step with each other."""
    for place in (20_000, 40_000):
        click = np.zeros((65_536, 2), np.float32)
        click[place : place + 32] = 1.0
        for semitones in (-2.0, 2.0):
            energy = np.square(shift_pitch(click, semitones, RATE)[:, 0], dtype=np.float64)
            centre = np.average(np.arange(len(energy)), weights=energy)
            assert centre == pytest.approx(place + 16, abs=0.005 * RATE)


@pytest.mark.parametrize("samples", [1, 100, 4096, 30_000])
def test_any_length_and_silence_come_through(samples: int):
    noise = np.random.default_rng(0).standard_normal((samples, 2)).astype(np.float32)
    for audio in (noise, np.zeros_like(noise)):
        shifted = shift_pitch(audio, 1.0, RATE)
        assert shifted.shape == audio.shape
        assert np.isfinite(shifted).all()
    assert not shifted.any()


def digest(semitones: float) -> str:
    return hashlib.sha256(shift_pitch(tone(330.0, 20_000), semitones, RATE).tobytes()).hexdigest()


def test_the_shift_is_a_function_of_its_arguments_in_any_thread_and_process():
    intervals = [1.3, -0.7, 1.3, 2.0, -0.7, 1.3]
    alone = [digest(semitones) for semitones in intervals]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, intervals)) == alone
    code = f"import test_augment; print(test_augment.digest({intervals[0]}))"
    output = subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT, text=True)
    assert output.strip() == alone[0]


def test_the_pair_is_shifted_by_one_interval():
    config = dataclasses.replace(
        NO_AUGMENTATION, pitch_probability=1.0, pitch_semitones=(-2.0, 2.0)
    )
    seen = []
    for seed in range(3):
        pair = augment(np.random.default_rng(seed), Segment(tone(330.0), tone(550.0)), config, RATE)
        moved = [12 * np.log2(pitch(x) / hz) for x, hz in zip(pair, (330.0, 550.0), strict=True)]
        assert moved[0] == pytest.approx(moved[1], abs=0.15)
        seen.append(moved[0])
    assert max(seen) - min(seen) > 0.2


def test_the_library_is_not_touched_at_probability_zero(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    monkeypatch.setitem(sys.modules, "python_stretch.Signalsmith", None)
    examples(AugmentConfig(pitch_probability=0.0), 1000, 0)
    with pytest.raises(UserError, match="python-stretch, which is not installed"):
        examples(AugmentConfig(pitch_probability=1.0), 1000, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"polarity_probability": -0.1},
        {"gain_db": (3.0, -3.0)},
        {"remix_probability": 2.0},
        {"pitch_probability": 1.1},
        {"pitch_semitones": (0.0, 13.0)},
    ],
)
def test_bad_augmentation_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        AugmentConfig(**fields)
