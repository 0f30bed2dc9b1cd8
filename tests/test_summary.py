"""Means, medians, intervals and spreads: closed forms, and an interval that covers as it says."""

import numpy as np
import pytest
import scored

from diffsep_jax.evaluation import summary
from diffsep_jax.evaluation.protocols import GAIN, MIXTURE


def column(values):
    return np.asarray(values, np.float64)[:, None]


def lead(result, condition=scored.POINT, part=""):
    return summary.summarise(result)[part, condition, "utterance_sdr"]


def test_one_track_has_no_interval_and_none_has_no_statistic():
    assert summary.bootstrap_interval(column([1.0]), np.mean) is None
    assert summary.statistic(column([1.0])).median == 1.0
    found = summary.statistic([])
    assert (found.tracks, found.mean, found.median_interval) == (0, None, None)


def test_intervals_are_the_same_every_time_and_move_with_the_values():
    values = column(np.random.default_rng(0).normal(size=20))
    low, high = summary.bootstrap_interval(values, np.median)
    assert summary.bootstrap_interval(values, np.median) == (low, high)
    assert low < np.median(values) < high
    shifted = summary.bootstrap_interval(values + 3, np.median)
    assert shifted == pytest.approx((low + 3, high + 3))


def test_the_width_of_a_means_interval_is_that_of_the_normal_law():
    values = column(np.random.default_rng(2).normal(size=200))
    low, high = summary.bootstrap_interval(values, np.mean)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.05)


def test_repeats_give_the_mean_of_medians_and_their_spread():
    values = np.array([[1.0, 2.0], [5.0, 6.0], [9.0, 14.0]])
    found = summary.statistic(values)
    assert (found.tracks, found.median) == (3, 5.5)
    assert found.spread == pytest.approx(np.sqrt(0.5))  # of 5 and 6
    assert found.mean == pytest.approx(values.mean())
    assert summary.statistic(values[:, :1]).spread is None


def test_silent_and_missing_tracks_are_left_out_of_everything_but_time():
    result = scored.result(
        [
            scored.rows("a", [1.0, 3.0]),
            scored.rows("b", [5.0, 7.0], mixture=-2.0),
            scored.rows("silent", [None, None]),
            scored.rows("missing", mixture=-9.0),
        ]
    )
    assert (lead(result).tracks, lead(result).median) == (2, 4.0)
    assert summary.real_time_factor(result, scored.POINT) == 0.5  # the silent track's too
    assert summary.real_time_factor(result, MIXTURE) is None
    # Of the same tracks, not of "missing".
    assert (lead(result, MIXTURE).tracks, lead(result, MIXTURE).median) == (2, -1.0)


def test_a_metric_with_a_best_value_has_a_deviation():
    """Too loud on one track and too quiet on the other is 0 dB in the median, and wrong by 3."""
    names = ("utterance_sdr", "level_1_5khz")
    tracks = [scored.rows("a", [-3.0], metrics=names), scored.rows("b", [3.0], metrics=names)]
    found = summary.summarise(scored.result(tracks, metrics=names))
    level = found["", scored.POINT, "level_1_5khz"]
    assert (level.median, level.deviation) == (0, 3)
    assert found["", scored.POINT, "utterance_sdr"].deviation is None


def test_the_gain_that_a_condition_has_over_the_best_constant():
    """The median of differences, not the difference of medians."""
    values = [(1.0, [2.0, 4.0]), (5.0, [3.0, 3.0]), (0.0, [9.0, 9.0])]
    tracks = [scored.rows(str(i), row, mixture=floor) for i, (floor, row) in enumerate(values)]
    tracks += [scored.rows("missing"), scored.rows("silent", [None, None])]
    over, better = summary.over_gain(scored.result(tracks), scored.POINT)
    assert (over.tracks, better) == (3, 2)
    assert over.median == 2.0  # the mean of 1, of 1, -2, 9, and 3, of 3, -2, 9
    assert over.spread == pytest.approx(np.sqrt(2))


def test_a_part_has_the_statistics_of_its_tracks():
    sung = [scored.rows(str(i), [float(i)], part="sung") for i in range(3)]
    rest = [scored.rows("x", [9.0], part="spoken"), scored.rows("y", [-5.0])]
    whole = scored.result([*sung, *rest])
    assert list(whole.parts) == ["", "spoken", "sung"]
    assert lead(whole).tracks == 5
    for condition in (scored.POINT, GAIN):
        assert lead(whole, condition, "sung") == lead(scored.result(sung), condition)


@pytest.mark.parametrize(
    ("values", "comparable", "different"),
    [
        ({"a": (1, 1), "b": (2, 2)}, "ab", False),
        ({"a": (1, 1), "b": (None, None)}, "a", False),  # like with like, nothing to say
        ({"a": (1, 1), "b": (2, None)}, "ab", True),
        ({"a": (1, None), "b": (None, 2)}, "ab", True),  # as many, but not the same
        ({"a": (None, None), "b": (None, None)}, "ab", False),  # no number beside the anchors'
    ],
)
def test_anchors_are_of_the_tracks_that_were_scored(values, comparable, different):
    result = scored.result(
        [
            scored.rows(
                name,
                mixture=float(i),
                estimates={c: [v and float(v)] for c, v in zip("xy", pair, strict=True)},
            )
            for i, (name, pair) in enumerate(values.items())
        ]
    )
    assert summary.values_by_condition(result, "utterance_sdr")[MIXTURE].keys() == set(comparable)
    mixture = lead(result, MIXTURE)
    assert mixture.tracks == len(comparable)
    assert mixture.mean == np.mean(["ab".index(name) for name in comparable])
    assert summary.tracks_differ(result) == different


def test_the_best_condition_is_the_first():
    estimates = {"worse": [1.0], "silent": [None], "best": [3.0]}
    result = scored.result([scored.rows("a", estimates=estimates)])
    assert summary.ranked(result, summary.summarise(result)) == ["best", "worse", "silent"]
