"""The benchmarks: turns are taken, the samplers' runs, what is wrong with the options is said."""

import re

import micro
import pytest

from benchmarks import sampling
from benchmarks.turns import take_turns
from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import save_model


def test_all_take_turns_and_the_first_do_not_count():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = take_turns(runs, repeats=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    for each in seconds.values():
        assert 0 <= each.fastest <= each.clock < 1


@pytest.mark.slow
def test_each_sampler_and_number_of_steps_has_a_row(tmp_path, capsys):
    save_model(tmp_path, micro.MODEL, micro.random_params(micro.MODEL))
    options = {"model": str(tmp_path), "samplers": ("ddim", "direct"), "steps": (1, 3)}
    sampling.main(sampling.Arguments(batch_size=2, repeats=1, **options))
    rows = re.findall(r"\| (\w+, \d) \| (\S+) \| (\S+) \| (\S+) \|", capsys.readouterr().out)
    assert [name for name, *_ in rows] == ["ddim, 1", "ddim, 3", "direct, 0"]
    for _, *figures in rows:
        seconds, factor, chunks = map(float, figures)
        assert factor == pytest.approx(seconds / (2 * micro.MODEL.segment / 44_100), rel=0.02)
        assert chunks == pytest.approx(2 / seconds, rel=0.02)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"steps": (5, 0)}, "--steps"),
        ({"batch_size": 0}, "--batch-size"),
        ({"samplers": ("direct",), "torch": True}, "--torch"),
    ],
)
def test_bad_arguments_are_named(bad, named):
    with pytest.raises(UserError, match=named):
        sampling.Arguments(**bad)
