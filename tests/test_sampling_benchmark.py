"""The benchmark of the samplers: its arithmetic, a run of the smallest model, its plots."""

import json
import math

import jax
import matplotlib.image
import micro
import pytest

from benchmarks import sampling
from benchmarks.sampling_picture import draw, read_scores
from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import save_model

SCORE = {"label": "T=5", "sampler": "ddim", "steps": 5, "sdr": 3, "real_time_factor": 0.1}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, micro.MODEL, jax.jit(micro.MODEL.init)(jax.random.key(0)))
    arguments = sampling.Arguments(
        model=str(folder), samplers=("ddim",), steps=(1, 3), batch_sizes=(2,), repeats=1
    )
    return sampling.measure(arguments)


def test_runs_are_told_in_consistent_units(report):
    assert [(run["sampler"], run["steps"]) for run in report["runs"]] == [
        ("ddim", 1),
        ("ddim", 3),
        ("direct", 0),
    ]
    peak = report["machine"]["float32 matmul peak, FLOP/s"]
    for run in report["runs"]:
        seconds = run["seconds"]
        assert math.isclose(run["chunks_per_second"] * seconds, 2)
        assert math.isclose(run["real_time_factor"] * 2 * micro.MODEL.segment / 44_100, seconds)
        flops = sampling.sampling_flops(micro.MODEL, 2, run["steps"])
        assert math.isclose(run["flops_per_second"] * seconds, flops)
        assert math.isclose(run["share_of_peak"] * peak, run["flops_per_second"])
    json.dumps(report)


def test_seconds_of_a_step_are_the_slope(report):
    assert sampling.slope({2: 1.0, 5: 2.5}) == 0.5
    assert sampling.slope({5: 2.5}) is None
    (program,) = (each for each in report["programs"] if each["sampler"] == "ddim")
    first, last, direct = (run["seconds"] for run in report["runs"])
    assert math.isclose(program["seconds_per_step"], (last - first) / 2)
    assert program["conditioner_seconds"] == direct
    assert program["compile_seconds"] > 0


def test_plots(report, tmp_path):
    widths = []
    for scores in (None, [SCORE]):
        draw(tmp_path / "plot.png", report["runs"], scores)
        widths.append(matplotlib.image.imread(tmp_path / "plot.png").shape[1])
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("nothing", "no readable JSON"),
        ("{}", "a list of scores"),
        (json.dumps([SCORE, SCORE | {"sdr": "high"}]), "score 2 has sdr 'high'"),
    ],
)
def test_bad_scores_are_named(content, named, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps([SCORE]))
    assert read_scores(path) == [SCORE]
    path.write_text(content)
    with pytest.raises(UserError, match=named):
        read_scores(path)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"steps": (5, 0)}, "--steps"),
        ({"batch_sizes": ()}, "--batch-sizes"),
        ({"samplers": ("direct",), "torch": True}, "--torch"),
        ({"scores": "scores.json"}, "--scores"),
    ],
)
def test_bad_arguments_are_named(bad, named):
    with pytest.raises(UserError, match=named):
        sampling.Arguments(**bad)
