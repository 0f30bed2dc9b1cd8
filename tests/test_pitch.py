"""Pitch shift: the interval, length, place and level, in any thread and process."""

import hashlib
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tones import RATE, pitch, tone

from data_pipelines.pitch import shift_pitch

TESTS = pathlib.Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}


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
    code = f"import test_pitch; print(test_pitch.digest({intervals[0]}))"
    output = subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT, text=True)
    assert output.strip() == alone[0]
