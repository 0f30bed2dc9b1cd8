"""What a user says of the sampler, and what follows from it."""

import subprocess
import sys

import pytest

from diffsep_jax.errors import UserError
from diffsep_jax.inference.settings import PRESETS, SamplerOptions, SamplerSettings


@pytest.mark.parametrize("preset", PRESETS)
def test_without_options_it_is_the_models_preset(preset):
    assert SamplerOptions().settings(preset) == PRESETS[preset]
    assert SamplerOptions(preset="best").settings(preset) == PRESETS["best"]
    assert SamplerOptions(seed=7).settings("fast") == SamplerSettings(sampler="direct", seed=7)


def test_options_of_diffusion_draw_samples():
    for options in ({"steps": 7}, {"eta": 0.1}, {"schedule": 3.0}, {"temperature": 0.5}):
        found = SamplerOptions(**options).settings("fast")
        assert found == SamplerSettings(**vars(PRESETS["balanced"]) | options)
    assert SamplerOptions().settings("fast", refines=True) == PRESETS["balanced"]
    assert SamplerOptions(steps=7).settings("best").ensemble == PRESETS["best"].ensemble


def test_a_sampler_alone_takes_the_papers_settings():
    assert SamplerOptions(sampler="ddim").settings("best") == SamplerSettings()
    assert SamplerOptions(sampler="ab2", steps=4).settings("fast") == SamplerSettings(
        sampler="ab2", steps=4
    )
    assert SamplerOptions(sampler="direct").settings() == SamplerSettings(sampler="direct")


def test_single_options_go_before_the_presets():
    found = SamplerOptions(preset="best", steps=3, sampler="ab2").settings("fast")
    assert found == SamplerSettings(**vars(PRESETS["best"]) | {"steps": 3, "sampler": "ab2"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast", "steps": 5}, "preset fast makes no use of steps"),
        ({"sampler": "direct", "eta": 0.4}, "sampler direct makes no use of eta"),
        ({"sampler": "direct", "crossover_hz": 9.0}, "makes no use of crossover_hz"),
        ({"sampler": "ab2", "eta": 0.4, "cutoff_hz": 9.0}, "no use of eta, cutoff_hz"),
        ({"preset": "fast", "sampler": "ab2"}, "sampler ab2 contradicts preset fast"),
        ({"preset": "best", "sampler": "direct"}, "sampler direct contradicts preset best"),
        ({"steps": 0}, "steps 0, expected 1 to 1000000"),
    ],
)
def test_what_contradicts_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        SamplerOptions(**options).settings("fast")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sampler='dpm2m'", "sampler 'dpm2m', expected ddim, ab2, direct"),
        ("preset='turbo'", "preset 'turbo', expected fast, balanced, best"),
    ],
)
def test_unknown_names_are_refused_where_no_type_checker_runs(option, message):
    code = f"from diffsep_jax.inference.settings import SamplerOptions; SamplerOptions({option})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stderr.rstrip().endswith(f"UserError: {message}")
