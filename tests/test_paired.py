"""Paired comparison of two results: its sign, what it calls chance, what it refuses."""

import dataclasses

import numpy as np
import pytest
import scored

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import compare as command
from diffsep_jax.evaluation import result_files
from diffsep_jax.evaluation.paired import compare
from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.evaluation.results import Condition

NAMES = [f"song {i}" for i in range(20)]
FINISHED = Condition(name="folder", settings={})


def result(values, *, condition=FINISHED, metrics=scored.SDR, **fields):
    """A result of `values[track, repeat]`."""
    tracks = [
        scored.track(name, list(row), condition=condition.name, metrics=metrics)
        for name, row in zip(NAMES, values, strict=False)
    ]
    return scored.result(tracks, [condition], metrics, **fields)


def values(repeats=1, seed=0, spread=5.0):
    return np.random.default_rng(seed).normal(5, spread, (len(NAMES), repeats))


def test_what_is_better_on_every_track_is_better_by_more_than_chance():
    """Songs differ by 5 dB, B is better by 0.3: only the pairs show it."""
    a = values()
    b = a + 0.3 + 0.05 * values(seed=1, spread=1.0) - 0.25
    found = compare(result(a), result(b))[0]
    assert found.metric == "utterance_sdr"
    assert (found.better, found.worse) == (20, 0)
    assert found.median == pytest.approx(np.median(b - a))
    low, high = found.median_interval
    assert 0 < low < found.median < high
    assert found.p_value < 1e-4
    assert found.verdict == "B is better, by more than chance"
    back = compare(result(b), result(a))[0]
    assert back.median == pytest.approx(-found.median)
    assert (back.better, back.worse) == (0, 20)
    assert back.verdict == "A is better, by more than chance"


def test_a_smaller_distance_is_better():
    a = values()
    b = a - 1 + 0.01 * values(seed=1, spread=1.0)
    metrics = ("utterance_sdr", "mr_stft")
    sdr, distance = compare(result(a, metrics=metrics), result(b, metrics=metrics))
    assert (sdr.better, distance.better) == (0, 20)
    assert sdr.verdict.startswith("A is better")
    assert distance.verdict.startswith("B is better")


@pytest.mark.parametrize("metric", ["level_1_5khz", "calibration_1_5khz"])
def test_nearer_to_the_best_value_is_better(metric):
    """Whichever side of it A and B are on."""
    best = METRICS[metric].best
    a = best + np.where(np.arange(20) % 2, -3.0, 3.0)[:, None]
    b = best + 0.5 * (a - best)
    metrics = ("utterance_sdr", metric)
    _, found = compare(result(a, metrics=metrics), result(b, metrics=metrics))
    assert set(found.differences.values()) == {-1.5}
    assert (found.better, found.worse) == (20, 0)
    assert found.verdict == "B is better, by more than chance"


def test_differences_of_both_signs_are_chance():
    a = values()
    found = compare(result(a), result(a + values(seed=3, spread=1.0) - 5))[0]
    assert found.p_value > 0.05
    assert found.verdict.startswith("no more than these tracks' differences")


@pytest.mark.parametrize(("num_tracks", "num_equal"), [(1, 0), (5, 0), (6, 1)])
def test_of_five_differences_nothing_can_be_said(num_tracks, num_equal):
    """Were all of one sign, Wilcoxon's p would be above 0.05."""
    a = values()[:num_tracks]
    b = a + 1.0 * (np.arange(num_tracks) >= num_equal)[:, None]
    found = compare(result(a), result(b))[0]
    num_differ = num_tracks - num_equal
    assert found.p_value > 0.05
    assert found.verdict == f"too few tracks to tell: {num_differ} differ, and 6 are needed"


def test_a_mean_of_the_other_sign_is_no_gain():
    a = values()
    b = a + 0.1
    b[3] -= 9
    found = compare(result(a), result(b))[0]
    assert found.median > 0 > found.mean
    assert found.verdict.startswith("median and mean disagree")


def test_six_differences_of_one_sign_are_enough():
    found = compare(result(values()[:6]), result(values()[:6] + 1))[0]
    assert found.verdict == "B is better, by more than chance"


def test_equal_results_do_not_differ():
    found = compare(result(values()), result(values()))[0]
    assert (found.better, found.worse, found.p_value) == (0, 0, None)
    assert found.verdict == "no difference"


def test_less_than_the_seeds_give_is_no_gain():
    """Two draws of a model against two others, which all lie 3 dB about."""
    drawn = Condition(name="T=50 eta=0", settings={"sampler": "ddim"})
    a = values(repeats=2, spread=3.0)
    shift = np.float64([0.2, 0.2])
    found = compare(result(a, condition=drawn), result(a + shift, condition=drawn))[0]
    assert found.p_value < 0.05
    variance = a.var(axis=1, ddof=1) / 2
    assert found.repeat_noise == pytest.approx(np.sqrt(2 * variance.sum()) / len(NAMES))
    assert found.verdict == "no more than other seeds would give"
    large = compare(result(a, condition=drawn), result(a + 20 * shift, condition=drawn))[0]
    assert large.verdict == "B is better, by more than chance"


def test_one_draw_does_not_tell_the_seeds_part():
    drawn = Condition(name="T=50 eta=0", settings={"sampler": "ddim"})
    found = compare(result(values(), condition=drawn), result(values() + 1, condition=drawn))[0]
    assert found.repeat_noise is None
    assert found.verdict == "B is better, by one draw; --repeats 5 tells more"
    direct = Condition(name="direct", settings={"sampler": "direct"})
    found = compare(result(values(), condition=direct), result(values() + 1, condition=direct))[0]
    assert found.repeat_noise == 0
    assert found.verdict == "B is better, by more than chance"


@pytest.mark.parametrize(
    ("num_broken", "names"),
    [
        (1, "song 0"),
        (5, "song 0, song 1, song 2, song 3, song 4"),
        (8, "song 0, song 1, song 2, song 3, song 4 and 3 more"),
    ],
)
def test_tracks_without_a_score_are_named_as_left_out(num_broken, names):
    a = result(values())
    broken = [dataclasses.replace(each, estimates={"folder": ()}) for each in a.tracks[:num_broken]]
    b = dataclasses.replace(a, tracks=(*broken, *a.tracks[num_broken:]))
    found = compare(a, b)[0]
    assert found.left_out == tuple(NAMES[:num_broken])
    assert len(found.differences) == 20 - num_broken
    line = command.summary_line(found)
    assert f"; {num_broken} left out, without a score ({names}):" in line


def test_brackets_in_a_name_are_no_markup():
    found = compare(result(values()), result(values()))[0]
    found = dataclasses.replace(found, left_out=("A Song [live]",))
    printed = " ".join(" ".join(scored.lines_of(command.comparison_table(found))).split())
    assert "A Song [live]" in printed


def test_what_cannot_be_compared_is_named():
    a = result(values())

    def with_first(**fields):
        return dataclasses.replace(
            a, tracks=(dataclasses.replace(a.tracks[0], **fields), *a.tracks[1:])
        )

    several = dataclasses.replace(a, conditions=(FINISHED, Condition(name="else", settings={})))
    other_floor = {"mixture": scored.score(0.5)}
    for b, message in [
        (dataclasses.replace(a, tracks=a.tracks[:-1]), "song 19 in A where B has none"),
        (with_first(name="else"), "song 0 in A where B has else"),
        (with_first(audio_seconds=3.0), "song 0 differs: audio_seconds is 4.0 in A and 3.0 in B"),
        (with_first(references=other_floor), "the mixture as estimate scores 0.000 dB in A and"),
        (
            dataclasses.replace(a, protocols=a.protocols | {"si_sdr": "of old"}),
            "si_sdr is .* and 'of old' in B",
        ),
        (several, "B has 2 conditions; name one of them by --condition-b: folder, else"),
        (result(np.full((20, 1), None)), "song 0 differs: silent is False in A and True in B"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            compare(a, b)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--condition-a 'x': unknown, expected one of folder"):
        compare(a, a, condition_a="x")


def test_the_command_prints_tracks_and_verdict(tmp_path, capsys):
    for name, each in (("a", result(values())), ("b", result(values() + 1))):
        for track in each.tracks:
            result_files.write_track(tmp_path / name, track, each.settings)
        result_files.write_result(tmp_path / name, each)
    command.main([str(tmp_path / "a"), str(tmp_path / "b")])
    printed = capsys.readouterr().out
    assert printed.count("+1.00") >= 21
    assert "utterance SDR (whole track" in printed
    assert "by more than chance" in " ".join(printed.split())
    assert "SI-SDR: median +1.00" in printed
