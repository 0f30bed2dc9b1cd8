"""One estimate of a song: its metrics, and the reason where there is none."""

import dataclasses

import numpy as np
import pytest
import scored

from diffsep_jax import metrics
from diffsep_jax.evaluation.protocols import ANCHORS
from diffsep_jax.evaluation.scoring import score, score_anchors, with_calibration

CHUNK = tuple(name for name in scored.ALL if name.startswith("chunk"))
CALIBRATION = tuple(name for name in scored.ALL if name.startswith("calibration"))

BEYOND_THE_RATE = "level_10_16khz"
"""Songs of 22 kHz have nothing there."""


def scaled(song, factor):
    vocals = np.float32(factor) * song.vocals
    return vocals, song.mixture - vocals


@pytest.fixture(scope="module")
def song():
    return scored.song(seconds=2.0)


def test_a_scaled_estimate_has_its_closed_forms(song):
    found = score(song, *scaled(song, 0.5), scored.ALL)
    assert tuple(found)[: len(scored.ALL)] == scored.ALL
    # Somebody sings all the time, and one estimate has no spread.
    assert found["undefined"].keys() == {BEYOND_THE_RATE, "leakage", *CALIBRATION}
    assert found["utterance_sdr"] == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert found["si_sdr"] > 60  # scale is forgiven
    assert found["mr_stft"] == pytest.approx(0.5 + np.log(2), abs=1e-3)
    for band in ("0.1_1khz", "1_5khz", "5_10khz"):
        assert found[f"level_{band}"] == pytest.approx(-20 * np.log10(2), abs=1e-4)


def test_bands_above_the_vocals_bandwidth_are_left_out():
    narrow = scored.song(bandwidth_hz=6_000.0)
    samples = [narrow.vocals + scored.noise(*narrow.vocals.shape, seed=i) for i in range(2)]
    scores = [score(narrow, each, narrow.mixture - each, scored.ALL) for each in samples]
    for found in with_calibration(narrow, scores, samples):
        for metric in ("level", "calibration"):
            values = {n: v for n, v in found.items() if n.startswith(metric)}
            assert [v is None for v in values.values()] == [False, False, True, True]
            assert {n for n, v in values.items() if v is None} <= found["undefined"].keys()


def test_repeats_of_a_track_share_their_calibration(song):
    samples = [song.vocals + scored.noise(*song.vocals.shape, seed=i) for i in range(3)]
    scores = [score(song, each, song.mixture - each, scored.ALL) for each in samples]
    found = with_calibration(song, scores, samples)
    expected = metrics.calibration(song.vocals, samples, song.sample_rate)
    for before, after in zip(scores, found, strict=True):
        assert after["utterance_sdr"] == before["utterance_sdr"]
        for band, value in expected.items():
            assert after[f"calibration_{band}"] == value
            assert f"calibration_{band}" not in after["undefined"]
    assert with_calibration(song, scores[:1], samples[:1]) == scores[:1]


def test_only_what_is_asked_for_is_computed(song):
    found = score(song, *scaled(song, 0.9), scored.SDR)
    assert tuple(found) == scored.SDR
    vocals, _ = scaled(song, 0.9)
    assert found["utterance_sdr"] == metrics.sdr(song.vocals, vocals)


def test_the_frames_behind_a_chunk_metric_are_counted():
    """Without those in which the estimate is silent."""
    song = scored.song(seconds=3.0)
    vocals, accompaniment = scaled(song, 0.5)
    assert score(song, vocals, accompaniment, CHUNK)["chunk_frames"] == 3
    vocals[: scored.RATE] = 0
    assert score(song, vocals, accompaniment, CHUNK)["chunk_frames"] == 2
    assert score(song, 0 * vocals, accompaniment, CHUNK)["chunk_frames"] == 0
    assert "chunk_frames" not in score(song, vocals, accompaniment, scored.SDR)


def test_silent_vocals_leave_the_leakage_alone():
    song = scored.song(silent=True)
    found = score(song, song.mixture / 10, song.mixture, scored.ALL)
    assert found.pop("leakage") == pytest.approx(-20, abs=1e-5)
    assert set(found.pop("undefined").values()) == {"the true vocals are silent"}
    assert set(found.values()) == {None}


def test_a_silent_estimate_scores_0_db_and_has_no_frame(song):
    """It is not left out where a number says how bad it is."""
    found = score(song, *scaled(song, 0), scored.ALL)
    assert found["utterance_sdr"] == 0
    assert found["si_sdr"] < -50
    assert found["level_1_5khz"] == -metrics.LIMIT_DB
    assert found["chunk_frames"] == 0
    assert found["undefined"].keys() == {BEYOND_THE_RATE, "leakage", *CHUNK, *CALIBRATION}


def test_a_silent_accompaniment_leaves_no_frame(song):
    alone = dataclasses.replace(song, accompaniment=np.zeros_like(song.vocals))
    found = score(alone, *scaled(alone, 0.5), scored.ALL)
    assert set(CHUNK) <= found["undefined"].keys()
    assert found["undefined"]["chunk_sir"].startswith("no 1 s frame")


def test_anchors_are_floors_and_a_mask(song):
    """Silence, the mixture, the best that a gain makes of it, and what a mask does."""
    names = [name for name in scored.ALL if name not in (BEYOND_THE_RATE, "leakage", *CALIBRATION)]
    found = score_anchors(song, names)
    assert list(found) == list(ANCHORS)
    silence, mixture, gain, mask = (each["utterance_sdr"] for each in found.values())
    assert silence == 0
    assert mixture == metrics.sdr(song.vocals, song.mixture)
    # Two stems of noise that are equally loud: half of the mixture has half of the error.
    assert gain == pytest.approx(mixture + 20 * np.log10(2) / 2, abs=0.1)
    assert mask > gain + 1
    assert found["silence"]["undefined"].keys() == set(CHUNK)
    assert all("undefined" not in found[name] for name in ANCHORS[1:])
