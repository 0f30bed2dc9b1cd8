"""Paired comparison of two conditions: its sign, what it calls chance, what the seeds explain."""

import dataclasses

import numpy as np
import pytest
import scored

from diffsep_jax.evaluation.compare import compare, comparison_lines, difference_table
from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.inference.settings import SamplerSettings

NAMES = [f"song {i}" for i in range(20)]
DRAWN = dataclasses.asdict(SamplerSettings(eta=0.0))
DIRECT = dataclasses.asdict(SamplerSettings(sampler="direct"))


def result(a, b, *, settings=None, metrics=scored.SDR, seeds=None):
    """Conditions A and B, of values[track, repeat]; by default finished files."""
    tracks = [
        scored.rows(name, estimates={"A": list(ours), "B": list(theirs)}, metrics=metrics)
        for name, ours, theirs in zip(NAMES, a, b, strict=False)
    ]
    for row in (row for track in tracks for row in track):
        if seeds is not None and row["condition"] == "B":
            row["seed"] += seeds
    return scored.result(tracks, {"A": settings or {}, "B": settings or {}}, metrics)


def values(repeats=1, seed=0, spread=5.0):
    return np.random.default_rng(seed).normal(5, spread, (len(NAMES), repeats))


def compared(a, b, metric="utterance_sdr", **options):
    return compare(result(a, b, **options), "A", "B", metric)


def test_what_is_better_on_every_track_is_better_by_more_than_chance():
    """Songs differ by 5 dB, B is better by 0.3: only the pairs show it."""
    a = values()
    b = a + 0.3 + 0.05 * values(seed=1, spread=1.0) - 0.25
    found = compared(a, b)
    assert (found.better, found.worse) == (20, 0)
    assert found.median == pytest.approx(np.median(b - a))
    low, high = found.median_interval
    assert 0 < low < found.median < high
    assert found.p_value < 1e-4
    assert found.verdict == "B is better, by more than chance"
    back = compared(b, a)
    assert back.median == pytest.approx(-found.median)
    assert (back.better, back.worse) == (0, 20)
    assert back.verdict == "A is better, by more than chance"


def test_a_smaller_distance_is_better():
    a = values()
    found = compared(a, a - 1 + 0.01 * values(seed=1), "mr_stft", metrics=("mr_stft",))
    assert found.better == 20
    assert found.verdict.startswith("B is better")


@pytest.mark.parametrize("metric", ["level_1_5khz", "calibration_1_5khz"])
def test_nearer_to_the_best_value_is_better(metric):
    """Whichever side of it A and B are on."""
    best = METRICS[metric].best
    a = best + np.where(np.arange(20) % 2, -3.0, 3.0)[:, None]
    found = compared(a, best + 0.5 * (a - best), metric, metrics=(metric,))
    assert set(found.differences.values()) == {-1.5}
    assert (found.better, found.worse) == (20, 0)
    assert found.verdict == "B is better, by more than chance"


def test_differences_of_both_signs_are_chance():
    a = values()
    found = compared(a, a + values(seed=3, spread=1.0) - 5)
    assert found.p_value > 0.05
    assert found.verdict.startswith("no more than these tracks' differences")


@pytest.mark.parametrize(("num_tracks", "num_equal"), [(1, 0), (5, 0), (6, 1), (6, 0)])
def test_six_differences_are_needed(num_tracks, num_equal):
    """Wilcoxon's p of five is above 0.05, even if all are of one sign."""
    a = values()[:num_tracks]
    found = compared(a, a + 1.0 * (np.arange(num_tracks) >= num_equal)[:, None])
    num_differ = num_tracks - num_equal
    assert (found.p_value > 0.05) == (num_differ < 6)
    few = f"too few tracks to tell: {num_differ} differ, and 6 are needed"
    assert found.verdict == (few if num_differ < 6 else "B is better, by more than chance")


def test_a_mean_of_the_other_sign_is_no_gain():
    a = values()
    b = a + 0.1
    b[3] -= 9
    found = compared(a, b)
    assert found.median > 0 > found.mean
    assert found.verdict.startswith("median and mean disagree")


def test_equal_results_do_not_differ():
    found = compared(values(), values())
    assert (found.better, found.worse, found.p_value) == (0, 0, None)
    assert found.verdict == "no difference"


def test_less_than_other_seeds_give_is_no_gain():
    """Two draws of a model against two of other seeds, which all lie 3 dB about."""
    a = values(repeats=2, spread=3.0)
    found = compared(a, a + 0.2, settings=DRAWN, seeds=100)
    assert found.p_value < 0.05
    variance = a.var(axis=1, ddof=1) / 2
    assert found.seed_noise == pytest.approx(np.sqrt(2 * variance.sum()) / len(NAMES))
    assert found.verdict == "no more than other seeds would give"
    large = compared(a, a + 4, settings=DRAWN, seeds=100)
    assert large.verdict == "B is better, by more than chance"


def test_where_seeds_agree_their_differences_count():
    """Both draws of a track move alike, so that little is left that other seeds might change."""
    a = values(repeats=2, spread=3.0)
    difference = 0.2 + 0.02 * values(repeats=2, seed=1, spread=1.0) - 0.1
    found = compared(a, a + difference, settings=DRAWN)
    variance = difference.var(axis=1, ddof=1) / 2
    assert found.seed_noise == pytest.approx(np.sqrt(variance.sum()) / len(NAMES))
    assert found.verdict == "B is better, by more than chance"


def test_one_draw_does_not_tell_the_seeds_part():
    found = compared(values(), values() + 1, settings=DRAWN)
    assert found.seed_noise is None
    assert found.verdict == "B is better, by one draw; --repeats 5 tells more"
    found = compared(values(), values() + 1, settings=DIRECT)
    assert found.seed_noise == 0
    assert found.verdict == "B is better, by more than chance"


def test_tracks_without_a_score_are_counted_as_left_out():
    b = [[None]] * 8 + values()[8:].tolist()
    found = compared(values(), b)
    assert found.differences.keys() == set(NAMES[8:])
    assert "; 8 left out, without a score" in str(found)
    assert compared(values(), [[None]] * 20) is None


def test_of_two_conditions_every_metric_is_compared_and_every_track_is_told():
    both = result(values(), values() + 1, metrics=("utterance_sdr", "chunk_sdr", "level_1_5khz"))
    starts = [line.partition(":")[0] for line in comparison_lines(both, ["B", "A"])]
    assert starts == [
        "utterance SDR, B - A",
        "chunk SDR, B - A",
        "level 1-5k, distance from 0, B - A",
    ]
    table = difference_table(compare(both, "A", "B"))
    assert sorted(table.rows) == sorted([name, "+1.00"] for name in NAMES)
    assert "utterance SDR (whole track" in table.title


def test_of_more_the_best_is_compared_with_each():
    estimates = {name: [float(i)] for i, name in enumerate("abc")}
    three = scored.result([scored.rows(name, estimates=estimates) for name in NAMES])
    lines = list(comparison_lines(three, ["c", "b", "a"]))
    assert [line.partition(":")[0] for line in lines] == ["c - b", "c - a"]
    assert "median +2.00" in lines[1]
    assert list(comparison_lines(three, ["c"])) == []
