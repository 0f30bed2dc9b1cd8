"""What a user says of the sampler, and what follows from it."""

import functools
from contextlib import nullcontext

import pytest
from processes import python

from diffsep_jax import samplers
from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import load_default_preset
from diffsep_jax.inference.settings import (
    PAPER,
    PRESETS,
    REFINE,
    SamplerOptions,
    SamplerSettings,
    check_effect,
    complete,
)
from diffsep_jax.samplers import ddim


@pytest.mark.parametrize("preset", PRESETS)
def test_without_options_it_is_the_models_preset(preset):
    assert complete({}, preset) == PRESETS[preset]
    assert complete({"preset": "best"}, preset) == PRESETS["best"]


def test_every_option_is_a_setting_and_every_setting_is_somebodys():
    settings = set(SamplerSettings.__dataclass_fields__)
    assert SamplerOptions.__annotations__.keys() - {"preset"} == settings
    assert settings - {"sampler"} == samplers.SETTINGS.keys()


def test_options_of_diffusion_draw_samples():
    """A seed too: where nothing is drawn it would have no effect."""
    for options in (
        {"steps": 7},
        {"schedule": 3.0},
        {"temperature": 0.5},
        {"seed": 7},
    ):
        found = complete(options, "fast")
        assert found == SamplerSettings(**vars(PRESETS["balanced"]) | options)
    for preset in PRESETS:
        found = complete({"eta": 0.1, "cutoff_hz": 0.0}, preset)
        expected = {"sampler": "ddim", "eta": 0.1, "cutoff_hz": 0.0}
        base = PRESETS["best" if preset == "best" else "balanced"]
        assert found == SamplerSettings(**vars(base) | expected)
    assert complete({}, "fast", refines=True) == REFINE
    assert complete({"preset": "best"}, "fast", refines=True) == PRESETS["best"]
    assert complete({"steps": 7}, "best").ensemble == PRESETS["best"].ensemble


def test_a_sampler_alone_takes_the_papers_settings():
    assert complete({"sampler": "ddim"}, "best") == PAPER
    assert complete({"sampler": "ab2", "steps": 4}, "fast") == SamplerSettings(
        sampler="ab2", steps=4
    )
    assert complete({"sampler": "direct"}) == SamplerSettings(sampler="direct")


def test_options_take_precedence_over_the_preset():
    found = complete({"preset": "best", "steps": 3, "sampler": "ab2"}, "fast")
    assert found == SamplerSettings(**vars(PRESETS["best"]) | {"steps": 3, "sampler": "ab2"})


def test_none_is_as_if_it_were_not_given():
    assert complete({"preset": "best", "sampler": None, "eta": None}) == PRESETS["best"]


def test_values_of_another_type_are_refused_where_no_type_checker_runs():
    code = (
        "from diffsep_jax import SamplerSettings, UserError\n"
        "from diffsep_jax.inference.settings import complete\n"
        "for function, options in [\n"
        "    (SamplerSettings, {'steps': 2.5}),\n"
        "    (SamplerSettings, {'seed': 1.0}),\n"
        "    (SamplerSettings, {'sampler': 3}),\n"
        "    (lambda **options: complete(options), {'preset': 'turbo'}),\n"
        "]:\n"
        "    try: function(**options)\n"
        "    except UserError as error: print(error)\n"
    )
    process = python("-c", code)
    assert process.stdout.splitlines() == [
        "steps is 2.5; expected a whole number",
        "seed is 1.0; expected a whole number",
        "sampler is 3; expected a name or a function",
        "preset is turbo; expected one of fast, balanced, best",
    ]


def test_a_frequency_that_plays_no_part_may_be_too_high_for_a_model():
    for settings in (PRESETS["fast"], SamplerSettings(sampler="ab2"), SamplerSettings()):
        settings.check_rate(44_100)
    PRESETS["fast"].check_rate(8_000)
    SamplerSettings(sampler="ab2").check_rate(8_000)
    for name in ("cutoff_hz", "crossover_hz"):
        with pytest.raises(UserError, match=rf"{name} is 5000.0; expected less than 4000,"):
            SamplerSettings(**{"cutoff_hz": 0.0, name: 5000.0}).check_rate(8_000)


def test_a_bound_parameter_is_no_setting():
    method = SamplerSettings(sampler=functools.partial(ddim, eta=0.9)).method
    assert "eta" not in method.uses
    assert "steps" in method.uses


def test_a_function_is_a_sampler():
    def mine(velocity_fn, noise, *, steps): ...

    assert complete({"sampler": mine, "steps": 3}, "fast") == SamplerSettings(sampler=mine, steps=3)
    with pytest.raises(UserError, match="sampler mine does not use eta"):
        complete({"sampler": mine, "eta": 0.2})
    with pytest.raises(UserError, match="sampler is mine with start_sigma 1, which keeps nothing"):
        complete({"sampler": mine}).check_refines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast", "steps": 5}, "preset fast does not use steps"),
        ({"preset": "fast", "seed": 5}, "preset fast does not use seed"),
        ({"sampler": "direct", "eta": 0.4}, "sampler direct does not use eta"),
        ({"sampler": "direct", "crossover_hz": 9.0}, "does not use crossover_hz"),
        ({"sampler": "ab2", "eta": 0.4, "cutoff_hz": 9.0}, "not use eta, cutoff_hz"),
        ({"preset": "fast", "sampler": "ab2"}, "sampler ab2 contradicts preset fast"),
        ({"preset": "best", "sampler": "direct"}, "sampler direct contradicts preset best"),
        ({"steps": 0}, "steps is 0; expected 1 to 1000000"),
        ({"steps": 2**31}, "steps is 2147483648; expected 1 to 1000000"),
        ({"start_sigma": 1.1}, "start_sigma is 1.1; expected 1e-06 to 1"),
        ({"schedule": 9.0}, "schedule is 9.0; expected 0.1 to 8"),
        ({"temperature": -1.0}, "temperature is -1.0; expected 0 to 2"),
        ({"ensemble": 0}, "ensemble is 0; expected 1 to 10000"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"sampler": "euler"}, "sampler is euler; expected one of ddim, ab2, direct"),
    ],
)
def test_what_contradicts_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        complete(options, "fast")


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ({"sampler": "ddim", "eta": 0.0, "cutoff_hz": 5000.0}, "cutoff_hz"),
        ({"sampler": "ab2", "steps": 1, "schedule": 3.0}, "schedule"),
        ({"sampler": "DDIM", "steps": 1, "eta": 0.4}, "eta"),
        ({"sampler": "ddim", "eta": 0.0, "steps": 8}, None),
    ],
)
def test_options_that_change_nothing_are_refused(options, idle):
    settings = complete(options)
    expected = pytest.raises(UserError, match=f"^{idle} has no effect") if idle else nullcontext()
    with expected:
        check_effect(options, settings)


def test_names_have_no_case():
    assert complete({"preset": "BEST"}) == PRESETS["best"]
    assert complete({"sampler": "AB2"}) == complete({"sampler": "ab2"})
    assert load_default_preset("Small") == load_default_preset("small")
