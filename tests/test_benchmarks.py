"""The benchmarks: turns are taken, the samplers' runs, what is wrong with the options is said."""

import csv
import json
import re
from pathlib import Path

import micro
import numpy as np
import pytest
import soundfile as sf

from benchmarks import sampling
from benchmarks.turns import take_turns
from diffsep_jax import samplers
from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import save_model


def test_all_take_turns_and_the_first_do_not_count():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = take_turns(runs, repeats=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    for each in seconds.values():
        assert 0 <= each.fastest <= each.clock <= each.slowest < 1


SAMPLER = """
from diffsep_jax.samplers import adams_bashforth_2, register_sampler

register_sampler("mine", adams_bashforth_2, help="for a test")


def still(model, params, x, sigma, mixture, conditioning):
    return 0 * x
"""


@pytest.fixture
def model(tmp_path):
    save_model(tmp_path / "model", micro.MODEL, micro.random_params(micro.MODEL))
    return str(tmp_path / "model")


@pytest.mark.slow
def test_each_point_of_the_grid_has_a_row(model, capsys):
    sweep = ("sampler=ddim,direct", "steps=1,3", "eta=0")
    sampling.main(sampling.Arguments(model=model, sweep=sweep, batch_sizes=(2, 4), repeats=1))
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\S.*?) \| (\d) \| (\S+) \| \S+, \S+ \| (\S+) \|", out, re.M)
    names = ["T=1 eta=0", "T=3 eta=0", "direct"]
    assert [(name, size) for name, size, *_ in rows] == [(n, b) for b in "24" for n in names]
    for _, _, milliseconds, factor in rows:
        expected = float(milliseconds) / 1000 / (micro.MODEL.segment / 44_100)
        assert float(factor) == pytest.approx(expected, rel=0.02)
    assert "4 programs compiled for 6 rows" in out


@pytest.mark.slow
def test_songs_are_scored_and_runs_compared(model, tmp_path, monkeypatch, capsys):
    """With a sampler from a plugin; a velocity of one's own changes the scores."""
    (tmp_path / "plugin_of_a_test.py").write_text(SAMPLER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))
    for seed in range(2):
        folder = tmp_path / "songs" / f"song {seed}"
        folder.mkdir(parents=True)
        draw = np.random.default_rng(seed).standard_normal
        for stem in ("vocals", "accompaniment"):
            sf.write(folder / f"{stem}.wav", 0.1 * draw((22_050, 2)), 44_100)
    options = {
        "model": model,
        "sweep": ("sampler=mine,direct", "steps=2"),
        "repeats": 1,
        "data": str(tmp_path / "songs"),
    }
    plugin = "plugin_of_a_test"
    sampling.main(sampling.Arguments(**options, plugin=(plugin,), out=tmp_path / "first"))
    earlier = tmp_path / "first" / "rows.json"
    sampling.main(
        sampling.Arguments(
            **options, velocity=f"{plugin}:still", compare=earlier, out=tmp_path / "second"
        )
    )
    first, second = (
        json.loads((tmp_path / run / "rows.json").read_text())["rows"]
        for run in ("first", "second")
    )
    [mine, direct], [still, direct_again] = first, second
    assert [mine["name"], direct["name"]] == ["mine T=2", "direct"]
    assert direct["quality"] == direct_again["quality"]
    assert mine["quality"]["utterance_sdr"] != still["quality"]["utterance_sdr"]
    assert mine["flops"] > still["flops"] > direct["flops"] > 0
    median, low, high = mine["quality"]["mr_stft"]
    assert low <= median <= high
    ratio = still["real_time_factor"] / mine["real_time_factor"]
    gain = still["quality"]["utterance_sdr"][0] - mine["quality"]["utterance_sdr"][0]
    row = f"| mine T=2 | 4 | {ratio:.2f} | {gain:+.2f} |"
    assert row in capsys.readouterr().out
    [line, other] = csv.DictReader((tmp_path / "second" / "rows.csv").read_text().splitlines())
    assert float(line["utterance_sdr"]) == still["quality"]["utterance_sdr"][0]
    assert (line["sampler"], other["sampler"]) == ("mine", "direct")
    assert row in (tmp_path / "second" / "rows.md").read_text()
    page = (tmp_path / "second" / "index.html").read_text()
    assert "data:image/svg+xml" in page
    assert "mine T=2" in page
    # Scores of other chunks or weights are not taken for this run's, and that is found first.
    for other in ({"segment": 2 * micro.MODEL.segment}, {"model": "small"}):
        changed = {**options, **other, "plugin": (plugin,), "out": tmp_path / "first"}
        with pytest.raises(UserError, match=r"other settings \(.*(segment|weights)\).*Delete it"):
            sampling.main(sampling.Arguments(**changed))
    assert "timing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"batch_sizes": (0,)}, "--batch-sizes"),
        ({"sweep": ("sampler=direct",), "diffusers": True}, "--diffusers"),
        ({"data": "embedded"}, "--out"),
        ({"plugin": ("no_such_module",)}, "no_such_module"),
        ({"velocity": "os:nothing"}, "os:nothing"),
        ({"velocity": ":nothing"}, ":nothing"),
        ({"segment": 0}, "segment is 0"),
        ({"model": "smal"}, "model is .smal.; .* one of small, .*: a .py file, tiny,"),
        ({"compare": Path(__file__)}, "test_benchmarks.py: expected the rows.json"),
    ],
)
def test_bad_arguments_are_named(bad, named, model):
    with pytest.raises(UserError, match=named):
        sampling.main(sampling.Arguments(**({"model": model} | bad)))
