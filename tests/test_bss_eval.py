"""BSS Eval: against museval, against least squares written out, and its limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from museval_cases import cases

from benchmarks.bss_eval import museval
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import bss_eval as module
from diffsep_jax.evaluation.bss_eval import BssEval, FrameScores, median_over_frames
from diffsep_jax.metrics import LIMIT_DB

RATE, TAPS = 500, 4


@pytest.fixture(scope="module")
def track():
    """Two references and estimates of them, longer than one chunk of correlations."""
    rng = np.random.default_rng(0)
    references = rng.normal(0, 0.1, (2, 2_700, 2))
    leak = 0.4 * np.roll(references[::-1], 2, axis=1) + 0.3 * np.roll(references, 1, axis=1)
    return references, references + leak + rng.normal(0, 0.05, references.shape)


def score(references, estimates, **options):
    return BssEval(references, RATE, **{"num_taps": TAPS, **options})(estimates)


def delays(reference, num_taps):
    """Columns: every channel, delayed by 0 to num_taps - 1 samples."""
    return np.stack(
        [
            np.pad(channel, (delay, num_taps - 1 - delay))
            for channel in reference.T
            for delay in range(num_taps)
        ],
        axis=1,
    )


def by_least_squares(references, estimates, starts, window):
    """The definition, with the matrices of delayed references written out."""
    tail = ((0, TAPS - 1), (0, 0))

    def delayed(stems, frame):
        return np.concatenate([delays(stem[frame], TAPS) for stem in stems], axis=1)

    def decibels(signal, error):
        return 10 * np.log10(np.sum(signal**2) / np.sum(error**2))

    scores = np.empty((4, len(references), len(starts)))
    for stem, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        target = np.pad(estimate, tail)
        own, joint = (
            np.linalg.lstsq(delayed(stems, slice(None)), target, rcond=None)[0]
            for stems in ([reference], references)
        )
        for column, start in enumerate(starts):
            frame = slice(start, start + window)
            true, heard = (np.pad(audio[frame], tail) for audio in (reference, estimate))
            on_own, on_all = delayed([reference], frame) @ own, delayed(references, frame) @ joint
            scores[:, stem, column] = (
                decibels(true, heard - true),
                decibels(true, on_own - true),
                decibels(on_own, on_all - on_own),
                decibels(on_all, heard - on_all),
            )
    return FrameScores(*scores)


def test_definition(track):
    expected = by_least_squares(*track, starts=range(0, 2_500, 500), window=500)
    np.testing.assert_allclose(score(*track), expected, atol=1e-9)


def test_overlapping_frames(track):
    scores = score(*track, window_seconds=1.0, hop_seconds=0.3)
    expected = by_least_squares(*track, starts=range(0, 2_201, 150), window=500)
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_length_compiles_nothing(track):
    score(*track)
    programs = module._energies, module._add_cross_spectra
    before = [program._cache_size() for program in programs]
    for length in (40, 499, 1_234, 2_699):
        score(*(stems[:, :length] for stems in track))
    assert [program._cache_size() for program in programs] == before


def test_float64_stays_inside(track):
    as_float32 = [stems.astype(np.float32) for stems in track]
    exact = [stems.astype(np.float64) for stems in as_float32]
    np.testing.assert_array_equal(score(*as_float32), score(*exact))
    assert jnp.zeros(()).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_closed_forms(track):
    references, _ = track
    for gain in (0.5, -1.0, 100.0):
        scores = score(references, gain * references)
        expected = -20 * np.log10(abs(1 - gain))
        np.testing.assert_allclose(scores.sdr, expected, atol=1e-9)
        np.testing.assert_allclose(scores.isr, expected, atol=1e-9)
        assert scores.sir.min() > 200
        assert scores.sar.min() > 200
    equal = score(references, references)
    np.testing.assert_array_equal(equal.sdr, LIMIT_DB)
    for values in equal:
        assert values.min() > 200
        assert values.max() <= LIMIT_DB
    # The mixture is made of the references: whatever it has too much is interference.
    mixtures = score(references, np.stack([references.sum(axis=0)] * 2))
    assert mixtures.sar.min() > 200
    assert mixtures.sir.max() < 3


def test_silent_frames_are_nan_for_all_stems(track):
    references, estimates = (stems.copy() for stems in track)
    references[0, 500:1_000] = 0
    estimates[1, 2_000:2_500] = 0
    for values in score(references, estimates):
        silent = np.isnan(values)
        np.testing.assert_array_equal(silent, [[False, True, False, False, True]] * 2)
    # One channel with sound is enough, and so is one sample.
    references[0, 600, 1] = estimates[1, 2_499, 0] = 1e-6
    assert np.isfinite(score(references, estimates)).all()
    assert np.isfinite(score(track[0] * [1, -1], track[1])).all()
    assert np.isfinite(score(np.repeat(track[0][..., :1], 2, axis=2) * [1, -1], track[1])).all()


def test_medians_leave_silent_frames_out():
    values = np.array([[1, np.nan, 3, 10], [np.nan] * 4])
    scores = FrameScores(values, values + 1, values + 2, values + 3)
    assert median_over_frames(scores, 0) == {
        "chunk_sdr": 3,
        "chunk_isr": 4,
        "chunk_sir": 5,
        "chunk_sar": 6,
    }
    assert set(median_over_frames(scores, 1).values()) == {None}


@pytest.mark.parametrize("polarity", [1, -1])
def test_a_centred_voice_needs_no_least_norm(track, monkeypatch, polarity):
    references, estimates = track[0].copy(), track[1]
    references[0, :, 1] = polarity * references[0, :, 0]
    expected = by_least_squares(references, estimates, starts=range(0, 2_500, 500), window=500)
    monkeypatch.setattr(np.linalg, "lstsq", None)  # 17 times as slow
    np.testing.assert_allclose(score(references, estimates), expected, atol=1e-9)


def test_estimates_of_one_track_do_not_disturb_each_other(track):
    references, estimates = track
    evaluation = BssEval(references, RATE, num_taps=TAPS)
    evaluation(references + estimates)
    np.testing.assert_array_equal(evaluation(estimates), score(references, estimates))


def test_exactly_singular_equations(monkeypatch):
    """Clicks, equal in both stems: elimination meets a zero, and the least norm decides."""
    references = np.zeros((2, 1_000, 2))
    references[:, [100, 600]] = 4
    estimates = references + 0.5 * np.roll(references, 1, axis=1)
    fallbacks = []
    lstsq = np.linalg.lstsq
    monkeypatch.setattr(np.linalg, "lstsq", lambda *a, **k: fallbacks.append(a) or lstsq(*a, **k))
    scores = score(references, estimates)
    assert fallbacks
    # All that is wrong is an echo, which a filter of the stem itself can make.
    np.testing.assert_allclose(scores.sdr, 20 * np.log10(2), atol=1e-9)
    np.testing.assert_allclose(scores.isr, 20 * np.log10(2), atol=1e-9)
    assert scores.sir.min() > 200
    assert scores.sar.min() > 200


def test_bad_input_is_refused_in_one_line(track):
    references, estimates = track
    bad = {
        "the estimate's shape is": (references, estimates[:, 1:]),
        r"the shape is \(2, 0, 2\)": (references[:, :0], estimates[:, :0]),
        "the reference has NaN": (np.where(references > 0.3, np.nan, references), estimates),
        "the estimate has NaN or inf": (references, np.where(estimates > 0, np.inf, estimates)),
    }
    for message, stems in bad.items():
        with pytest.raises(UserError, match=message) as caught:
            score(*stems)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample_rate", "num_taps", "num_cases"),
    [
        (8_000, 32, None),
        (44_100, 512, 1),  # the real song, where the equations are the worst conditioned
    ],
)
def test_agreement_with_museval(sample_rate, num_taps, num_cases):
    """To 0.01 dB, of all that lies within 100 dB: of errors smaller than that, rounding is part."""
    some_cases = list(itertools.islice(cases(sample_rate, num_taps), num_cases))
    assert len(some_cases) >= (num_cases or 20)
    for case in some_cases:
        ours = BssEval(case.references, sample_rate, num_taps=num_taps)(case.estimates)
        theirs = museval(case.references, case.estimates, sample_rate, num_taps)
        pairs = dict(zip(FrameScores._fields, zip(ours, theirs, strict=True), strict=True))
        if case.singular:  # neither's filters are determined; SDR has none
            pairs = {"sdr": pairs["sdr"]}
        else:
            tracks = ([np.nanmedian(a, axis=1) for a in each] for each in (ours, theirs))
            pairs |= {"track": tuple(tracks)}
        for name, pair in pairs.items():
            a, b = (np.clip(each, -100, 100) for each in pair)
            np.testing.assert_allclose(
                a, b, rtol=0, atol=0.01, equal_nan=True, err_msg=f"{case.name}: {name}"
            )
