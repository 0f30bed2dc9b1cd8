"""One estimate of a song: its metrics, and the reason where there is none."""

import dataclasses

import numpy as np
import pytest
import scored

from diffsep_jax import metrics
from diffsep_jax.evaluation.scoring import score, score_references

CHUNK = tuple(name for name in scored.ALL if name.startswith("chunk"))


def scaled(song, factor):
    vocals = np.float32(factor) * song.vocals
    return vocals, song.mixture - vocals


@pytest.fixture(scope="module")
def song():
    return scored.song(seconds=2.0)


def test_a_scaled_estimate_has_its_closed_forms(song):
    found = score(song, *scaled(song, 0.5), scored.ALL)
    assert tuple(found.metrics) == scored.ALL
    assert found.undefined == {}
    assert found.metrics["utterance_sdr"] == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert found.metrics["si_sdr"] > 60  # scale is forgiven
    assert found.metrics["log_spectral_distance"] > 0


def test_only_what_is_asked_for_is_computed(song):
    found = score(song, *scaled(song, 0.9), scored.SDR)
    assert tuple(found.metrics) == scored.SDR
    vocals, _ = scaled(song, 0.9)
    assert found.metrics["utterance_sdr"] == metrics.sdr(song.vocals, vocals)


def test_the_frames_behind_a_chunk_metric_are_counted():
    """Without those in which the estimate is silent."""
    song = scored.song(seconds=3.0)
    vocals, accompaniment = scaled(song, 0.5)
    assert score(song, vocals, accompaniment, CHUNK).chunk_frames == 3
    vocals[: scored.RATE] = 0
    assert score(song, vocals, accompaniment, CHUNK).chunk_frames == 2
    assert score(song, 0 * vocals, accompaniment, CHUNK).chunk_frames == 0
    assert score(song, vocals, accompaniment, scored.SDR).chunk_frames is None


def test_silent_vocals_leave_everything_undefined():
    song = scored.song(silent=True)
    found = score(song, song.mixture, song.mixture, scored.ALL)
    assert set(found.metrics.values()) == {None}
    assert set(found.undefined.values()) == {"the true vocals are silent"}


def test_a_silent_estimate_scores_0_db_and_has_no_frame(song):
    """It is not left out where a number says how bad it is."""
    found = score(song, *scaled(song, 0), scored.ALL)
    assert found.metrics["utterance_sdr"] == 0
    assert found.metrics["si_sdr"] < -50
    assert found.metrics["log_spectral_distance"] > 10
    assert found.undefined.keys() == set(CHUNK)


def test_a_silent_accompaniment_leaves_no_frame(song):
    alone = dataclasses.replace(song, accompaniment=np.zeros_like(song.vocals))
    found = score(alone, *scaled(alone, 0.5), scored.ALL)
    assert found.undefined.keys() == set(CHUNK)
    assert found.undefined["chunk_sir"].startswith("no 1 s frame")


def test_references_are_the_mixture_and_better_and_better_masks(song):
    found = score_references(song, scored.ALL)
    assert list(found) == ["mixture", "irm1", "irm2"]
    sdr = [each.metrics["utterance_sdr"] for each in found.values()]
    assert sdr[0] == metrics.sdr(song.vocals, song.mixture)
    assert sdr[0] + 1 < min(sdr[1:])
    assert all(each.undefined == {} for each in found.values())
