"""Means, medians, intervals and spreads: closed forms, and an interval that covers as it says."""

import dataclasses

import numpy as np
import pytest
import scored

from diffsep_jax.evaluation import summary
from diffsep_jax.evaluation.results import Condition


def column(values):
    return np.asarray(values, np.float64)[:, None]


def test_the_interval_of_a_constant_is_that_constant():
    for reduce in (np.mean, np.median):
        assert summary.bootstrap_interval(column([2.5] * 7), reduce) == (2.5, 2.5)


def test_one_track_has_no_interval():
    assert summary.bootstrap_interval(column([1.0]), np.mean) is None
    assert summary.statistic(column([1.0])).median == 1.0


def test_intervals_are_the_same_every_time_and_move_with_the_values():
    values = column(np.random.default_rng(0).normal(size=20))
    low, high = summary.bootstrap_interval(values, np.median)
    assert summary.bootstrap_interval(values, np.median) == (low, high)
    assert low < np.median(values) < high
    shifted = summary.bootstrap_interval(values + 3, np.median)
    assert shifted == pytest.approx((low + 3, high + 3))


def test_the_interval_of_a_mean_covers_a_gaussians_about_as_often_as_it_says(monkeypatch):
    """Of 50 tracks it is a little narrow: 93 to 94 in 100 is what the theory gives."""
    monkeypatch.setattr(summary, "RESAMPLES", 500)
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        low, high = summary.bootstrap_interval(column(rng.normal(5, 2, 50)), np.mean)
        covered += low <= 5 <= high
    assert 0.90 <= covered / 400 <= 0.97


def test_the_width_of_a_means_interval_is_that_of_the_normal_law():
    values = column(np.random.default_rng(2).normal(size=200))
    low, high = summary.bootstrap_interval(values, np.mean)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.05)


def test_repeats_give_the_mean_of_medians_and_their_spread():
    values = np.array([[1.0, 2.0], [5.0, 6.0], [9.0, 14.0]])
    found = summary.statistic(values)
    assert found.tracks == 3
    assert found.repeat_medians == (5.0, 6.0)
    assert found.median == 5.5
    assert found.spread == pytest.approx(np.sqrt(0.5))  # of 5 and 6
    assert found.mean == pytest.approx(values.mean())
    assert summary.statistic(values[:, :1]).spread is None


def test_no_track_has_no_statistic():
    found = summary.statistic(np.zeros((0, 1)))
    assert (found.tracks, found.mean, found.median_interval) == (0, None, None)


def test_a_track_without_the_metric_in_one_repeat_is_left_out():
    whole = (scored.score(1.0), scored.score(2.0))
    part = (scored.score(1.0), scored.score(None))
    values = summary.values_of([whole, part, ()], "si_sdr")
    np.testing.assert_array_equal(values, [[1.0, 2.0]])
    assert summary.values_of([], "si_sdr").shape == (0, 1)


def test_summary_counts_silence_problems_and_time():
    tracks = [
        scored.track("a", [1.0, 3.0]),
        scored.track("b", [5.0, 7.0], mixture=-2.0),
        scored.track("silent", [None, None]),
        scored.track("missing", [], estimates={"T=50 eta=0": ()}),
    ]
    condition = Condition(name="T=50 eta=0", settings={})
    whole = summary.summarise(tracks, [condition], scored.SDR)
    assert (whole.tracks, whole.silent_tracks, whole.audio_seconds) == (4, 1, 16.0)
    found = whole.conditions["T=50 eta=0"]
    assert found.statistics["utterance_sdr"].tracks == 2
    assert found.statistics["utterance_sdr"].median == 4.0
    assert found.real_time_factor == 0.5  # 2 s for each 4 s, the silent track's too
    mixture = whole.references["mixture"]["utterance_sdr"]
    assert (mixture.tracks, mixture.median) == (2, -1.0)  # of the same tracks, not of "missing"


def test_a_metric_with_a_best_value_has_a_deviation():
    """Too loud on one track and too quiet on the other is 0 dB in the median, and wrong by 3."""
    names = ("utterance_sdr", "level_1_5khz")
    tracks = [scored.track("a", [-3.0], metrics=names), scored.track("b", [3.0], metrics=names)]
    found = scored.result(tracks, metrics=names).summary.conditions["T=50 eta=0"].statistics
    assert (found["level_1_5khz"].median, found["level_1_5khz"].deviation) == (0, 3)
    assert found["utterance_sdr"].deviation is None


def test_the_gain_that_a_condition_has_over_the_best_constant():
    """The median of differences, not the difference of medians."""
    values = [(1.0, [2.0, 4.0]), (5.0, [3.0, 3.0]), (0.0, [9.0, 9.0])]
    tracks = [
        scored.track(str(i), row, references={"gain": scored.score(floor)})
        for i, (floor, row) in enumerate(values)
    ]
    tracks.append(scored.track("missing", [], estimates={"T=50 eta=0": ()}))
    tracks.append(scored.track("silent", [None, None]))
    found = scored.result(tracks).summary.conditions["T=50 eta=0"]
    assert found.over_gain.tracks == 3
    assert found.over_gain.repeat_medians == (1.0, 3.0)  # of 1, -2, 9 and of 3, -2, 9
    assert found.over_gain.median == 2.0
    assert found.better_than_gain == 2


def test_a_part_has_the_summary_of_its_tracks():
    sung = [scored.track(str(i), [float(i)], part="sung") for i in range(3)]
    spoken = [scored.track("x", [9.0], part="spoken")]
    rest = [scored.track("y", [-5.0])]
    whole = scored.result([*sung, *rest, *spoken]).summary
    assert whole.tracks == 5
    assert list(whole.parts) == ["spoken", "sung"]
    assert (
        whole.parts["sung"]
        == scored.result([dataclasses.replace(track, part=None) for track in sung]).summary
    )
    assert scored.result(rest).summary.parts == {}


def several(**values):
    """A result of two conditions; a track's values are by condition, None where it failed."""
    conditions = [Condition(name=name, settings={}) for name in "xy"]
    tracks = [
        scored.track(
            name,
            [0.0],
            mixture=float(i),
            estimates={
                condition: () if value is None else (scored.score(float(value)),)
                for condition, value in zip("xy", pair, strict=True)
            },
        )
        for i, (name, pair) in enumerate(values.items())
    ]
    return scored.result(tracks, conditions)


@pytest.mark.parametrize(
    ("values", "comparable", "different"),
    [
        ({"a": (1, 1), "b": (2, 2)}, "ab", False),
        ({"a": (1, 1), "b": (None, None)}, "a", False),  # like with like, nothing to say
        ({"a": (1, 1), "b": (2, None)}, "ab", True),
        ({"a": (1, None), "b": (None, 2)}, "ab", True),  # as many, but not the same
        (
            {"a": (None, None), "b": (None, None)},
            "ab",
            False,
        ),  # no number beside those of the floors
    ],
)
def test_references_are_of_the_tracks_that_were_scored(values, comparable, different):
    result = several(**values)
    found = summary.comparable_tracks(result.tracks, result.conditions, "utterance_sdr")
    assert "".join(track.name for track in found) == comparable
    mixture = result.summary.references["mixture"]["utterance_sdr"]
    assert mixture.tracks == len(comparable)
    assert mixture.mean == np.mean(["ab".index(name) for name in comparable])
    assert summary.speak_of_other_tracks(result) == different
