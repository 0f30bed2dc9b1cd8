"""Measures of validation segments: what is reported of sung and of silent ones."""

import dataclasses

import jax.numpy as jnp
import micro
import numpy as np
import pytest

from diffsep_jax import metrics
from diffsep_jax.training.validation import _scores

SAMPLES = 8_192


def segments(scale=1.0):
    """Two segments at unit RMS: one sung in its first half, the other not at all."""
    rng = np.random.default_rng(0)
    band = rng.standard_normal((2, SAMPLES, 2)).astype(np.float32)
    vocals = rng.standard_normal((2, SAMPLES, 2)).astype(np.float32)
    vocals[0, SAMPLES // 2 :] = vocals[1] = 0
    made = {"mixture": vocals + band, "vocals": vocals, "direct": vocals / 2, "ddim": band / 10}
    return {name: jnp.asarray(np.float32(scale) * audio) for name, audio in made.items()}


def test_each_estimate_stands_beside_the_floors():
    names, rows = _scores(segments(), micro.MODEL)
    sung, silent = (dict(zip(names, row, strict=True)) for row in rows)
    assert sung["utterance_sdr_direct"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    # A gain of 1/3: half of the time the stems are equally loud, the other half one is silent.
    assert sung["utterance_sdr_gain"] == pytest.approx(10 * np.log10(3 / 2), abs=0.3)
    assert sung["utterance_sdr_mixture"] == pytest.approx(10 * np.log10(1 / 2), abs=0.3)
    assert sung["level_1_5khz_direct"] == pytest.approx(-20 * np.log10(2), abs=1e-3)
    assert sung["mr_stft_direct"] < sung["mr_stft_ddim"]
    assert sung["leakage_ddim"] == pytest.approx(-20, abs=1e-3)
    defined = {name for name, value in silent.items() if not np.isnan(value)}
    assert defined == {"leakage_direct", "leakage_ddim"}
    assert silent["leakage_direct"] == pytest.approx(-metrics.LIMIT_DB)


def test_the_level_of_training_plays_no_part():
    names, rows = _scores(segments(), micro.MODEL)
    louder = dataclasses.replace(micro.MODEL, target_rms=5.0)
    same_names, same = _scores(segments(scale=5.0), louder)
    assert same_names == names
    np.testing.assert_allclose(same, rows, rtol=1e-4)
