"""The compiled chunk program: what the result does not depend on, and what compiles nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

from diffsep_jax import samplers
from diffsep_jax.errors import UserError
from diffsep_jax.inference import traces
from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.noise import KEY_TYPE, white_noise

SETTINGS = SamplerSettings(steps=4, eta=0.6, cutoff_hz=3000.0, seed=3)
ITERATIVE = ("ddim", "ab2")


@pytest.fixture(scope="module", params=micro.FAMILIES)
def model(request):
    return micro.FAMILIES[request.param]


@pytest.fixture(scope="module")
def params(model):
    return micro.random_params(model)


@pytest.fixture(scope="module")
def chunks(model):
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((8, model.segment, 2)).astype(np.float32)
    return mixture, np.arange(8, dtype=np.int32) * 400


@pytest.fixture(scope="module")
def on_eight(model, params):
    return ChunkSeparator(model, params, batch_size=8)


@pytest.fixture(scope="module")
def reference(on_eight, chunks):
    return on_eight(*chunks, SETTINGS)


@pytest.mark.parametrize(("num_devices", "batch_size"), [(1, 1), (2, 2), (8, 16)])
def test_devices_and_batch_sizes_agree(model, params, chunks, reference, num_devices, batch_size):
    separator = ChunkSeparator(
        model, params, batch_size=batch_size, devices=jax.devices()[:num_devices]
    )
    mixture, start = (np.concatenate([each, each]) for each in chunks)
    parts = [
        separator(mixture[i : i + batch_size], start[i : i + batch_size], SETTINGS)
        for i in range(0, max(8, batch_size), batch_size)
    ]
    np.testing.assert_allclose(np.concatenate(parts)[:8], reference, atol=1e-4)


def test_a_batch_is_rounded_up_to_the_devices(model, params):
    assert ChunkSeparator(model, params, batch_size=3).batch_size == 8


def test_runtime_values_compile_nothing(on_eight, chunks, reference):
    compiled = on_eight.num_compilations
    different = {
        on_eight(
            *chunks, SamplerSettings(steps=steps, eta=eta, cutoff_hz=cutoff, seed=seed)
        ).tobytes()
        for steps in (1, 3)
        for eta in (0.0, 0.4)
        for cutoff in (0.0, 5000.0)
        for seed in (0, 1)
    }
    assert on_eight.num_compilations == compiled
    # eta and cutoff do nothing at T = 1, the cutoff nothing at eta = 0.
    assert len(different) == 2 * (1 + 3)


@pytest.mark.parametrize("sampler", ITERATIVE)
def test_start_ensemble_and_what_is_made_of_a_draw_compile_nothing(on_eight, chunks, sampler):
    settings = SamplerSettings(sampler=sampler, steps=2)
    on_eight(*chunks, settings)
    on_eight(*chunks, dataclasses.replace(settings, start_sigma=0.3), chunks[0])
    compiled = on_eight.num_compilations
    options = [
        {"steps": steps, "start_sigma": start_sigma, "ensemble": ensemble}
        for steps in (1, 3)
        for start_sigma in (0.3, 1.0)
        for ensemble in (1, 2)
    ]
    options += [{"schedule": 3.0}, {"temperature": 0.5}, {"crossover_hz": 5000.0}]
    different = {
        on_eight(*chunks, dataclasses.replace(settings, **each)).tobytes() for each in options
    }
    assert len(different) == len(options)
    on_eight(*chunks, dataclasses.replace(settings, start_sigma=0.6), chunks[0])
    assert on_eight.num_compilations == compiled


@pytest.mark.parametrize("sampler", ITERATIVE)
def test_a_crossover_keeps_the_direct_estimate_below(model, on_eight, chunks, sampler):
    plain = SamplerSettings(sampler=sampler, steps=3)
    direct, sampled = (
        np.asarray(on_eight(*chunks, settings))
        for settings in (SamplerSettings(sampler="direct"), plain)
    )
    joined = on_eight(*chunks, dataclasses.replace(plain, crossover_hz=5000.0))
    spectra = [np.fft.rfft(x, axis=1) for x in (joined, direct, sampled)]
    hertz = np.fft.rfftfreq(model.segment, 1 / model.sample_rate)
    scale = 1e-5 * np.abs(spectra[2]).max()
    for part, expected in ((hertz < 4400, spectra[1]), (hertz > 5700, spectra[2])):
        np.testing.assert_allclose(spectra[0][:, part], expected[:, part], atol=scale)


def test_the_temperature_scales_the_noise_at_the_start(on_eight, chunks):
    """At 0 nothing is random: seeds give the same."""
    cold = SamplerSettings(sampler="ab2", steps=3, temperature=0.0)
    np.testing.assert_array_equal(
        *(on_eight(*chunks, dataclasses.replace(cold, seed=seed)) for seed in (0, 1))
    )


def test_the_default_start_is_the_plain_sampler_to_the_bit(model, params, chunks):
    """As if start level and ensemble did not exist."""
    mixture, start = chunks
    key = jax.random.key(SETTINGS.seed, impl=KEY_TYPE)

    @jax.jit
    def plain(params, mixture, start, steps, eta, cutoff_hz):
        conditioning = model.condition(params, mixture)

        def noise_at(step):
            return white_noise(key, step, start, length=model.segment, channels=2)

        def velocity(x, sigma):
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        return samplers.ddim(
            velocity,
            noise_at(0),
            steps=steps,
            eta=eta,
            cutoff_hz=cutoff_hz,
            noise_fn=lambda step: noise_at(step + 1),
        )

    separator = ChunkSeparator(model, params, batch_size=8, devices=jax.devices()[:1])
    expected = plain(params, mixture, start, SETTINGS.steps, SETTINGS.eta, SETTINGS.cutoff_hz)
    np.testing.assert_array_equal(separator(mixture, start, SETTINGS), expected)


@pytest.mark.parametrize("sampler", ITERATIVE)
def test_a_start_near_0_gives_back_what_it_starts_from(on_eight, chunks, sampler):
    """Up to the level times the velocity, which is in the hundreds with random parameters."""
    settings = SamplerSettings(sampler=sampler, steps=3, start_sigma=1e-6, ensemble=2)
    direct = on_eight(*chunks, SamplerSettings(sampler="direct"))
    np.testing.assert_allclose(on_eight(*chunks, settings), direct, atol=1e-3)
    guess = chunks[0][::-1].copy()
    np.testing.assert_allclose(on_eight(*chunks, settings, guess), guess, atol=1e-3)


def test_a_start_from_noise_does_not_know_the_guess(on_eight, chunks, reference):
    np.testing.assert_array_equal(on_eight(*chunks, SETTINGS, chunks[0] + 1), reference)


def test_the_direct_estimate_is_the_guess_where_there_is_none(on_eight, chunks):
    settings = dataclasses.replace(SETTINGS, start_sigma=0.4)
    direct = np.asarray(on_eight(*chunks, SamplerSettings(sampler="direct")))
    warm = on_eight(*chunks, settings)
    np.testing.assert_allclose(on_eight(*chunks, settings, direct), warm, atol=1e-4)


@pytest.mark.parametrize("sampler", ITERATIVE)
def test_an_ensemble_is_the_mean_over_its_seeds(on_eight, chunks, sampler):
    settings = dataclasses.replace(SETTINGS, sampler=sampler, temperature=2.0)
    draws = [on_eight(*chunks, dataclasses.replace(settings, seed=seed)) for seed in (3, 4, 5)]
    ensemble = on_eight(*chunks, dataclasses.replace(settings, ensemble=3))
    np.testing.assert_allclose(ensemble, np.mean(draws, axis=0), atol=1e-5)
    assert np.ptp(draws, axis=0).max() > 0.1


def test_the_conditioner_runs_once_whatever_the_steps_and_seeds(model, params, chunks, monkeypatch):
    original, calls = SeparationModel.condition, []

    def counted(*args, **kwargs):
        jax.debug.callback(lambda: calls.append(1))
        return original(*args, **kwargs)

    monkeypatch.setattr(SeparationModel, "condition", counted)
    separator = ChunkSeparator(model, params, batch_size=8, devices=jax.devices()[:1])
    separator(*chunks, SamplerSettings(steps=3, ensemble=4))
    jax.effects_barrier()
    assert len(calls) == 1


def test_a_function_from_outside_is_a_sampler(on_eight, chunks):
    """It is called with the settings that it names, as one program for all their values."""

    def one_move(velocity_fn, noise, *, start_sigma):
        return noise - start_sigma * velocity_fn(noise, start_sigma)

    compiled = on_eight.num_compilations
    settings = SamplerSettings(sampler=one_move)
    outputs = [
        on_eight(*chunks, dataclasses.replace(settings, start_sigma=level, seed=seed)).tobytes()
        for level in (1.0, 0.5)
        for seed in (0, 1)
    ]
    assert len(set(outputs)) == 4
    assert on_eight.num_compilations == compiled + 1


def test_the_stride_is_the_deeper_networks(model, params):
    separator = ChunkSeparator(model, params)
    assert separator.stride == model.generator.stride in (64, 1024)
    assert separator.segment % separator.stride == 0


def test_the_result_depends_on_the_position(on_eight, chunks, reference):
    mixture, start = chunks
    moved = on_eight(mixture, start + 1, SETTINGS)
    assert np.abs(moved - reference).max() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "ab2", "steps": 3, "start_sigma": 0.6, "ensemble": 2},
        {"sampler": "ddim", "steps": 3, "start_sigma": 0.6, "refine": True},
    ],
    ids=["warm ensemble", "refine"],
)
def test_a_track_does_not_depend_on_batch_or_devices(model, params, settings):
    """From a mono track of another rate: many chunks, the last batch only partly filled."""
    waveform = 0.1 * np.random.default_rng(5).standard_normal(8 * model.segment).astype(np.float32)
    if settings.get("refine"):
        settings = {**settings, "refine": waveform[::-1]}
    results = []
    for batch_size, devices in ((1, 1), (8, 8)):
        separator = Separator(model, params, batch_size=batch_size)
        separator._chunks = ChunkSeparator(
            model, params, batch_size=batch_size, devices=jax.devices()[:devices]
        )
        results.append(separator.separate(waveform, 48_000, overlap=0.5, **settings))
    np.testing.assert_allclose(results[1].vocals, results[0].vocals, atol=1e-4)
    vocals, accompaniment = results[0]
    assert vocals.shape == accompaniment.shape == waveform.shape
    ulp = np.spacing(np.maximum(np.abs(vocals), np.abs(waveform)))
    assert np.all(np.abs(vocals + accompaniment - waveform) <= ulp)
    assert np.abs(vocals).max() > 0


def test_an_overlap_that_the_transform_reaches_beyond_is_refused():
    separator = Separator(micro.SPECTRAL, micro.SPECTRAL.init(jax.random.key(0)), batch_size=1)
    with pytest.raises(UserError, match=r"overlap is 0.4; expected 0.5 or more .*: 2048 samples"):
        separator.separate(np.ones((9000, 2), np.float32), 44_100, sampler="direct", overlap=0.4)


@pytest.mark.parametrize("refines", [False, True])
def test_a_call_after_compiling_compiles_nothing(model, params, chunks, refines):
    separator = ChunkSeparator(model, params, batch_size=8)
    separator.compile(SETTINGS, refines=refines)
    compiled = []

    def count(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        separator(*chunks, SETTINGS, chunks[0] if refines else None)
        assert not compiled
        separator(*chunks, dataclasses.replace(SETTINGS, sampler="ab2"))
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_a_second_start_traces_nothing(model, params, chunks, tmp_path, monkeypatch):
    folder = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        first = ChunkSeparator(model, params, batch_size=8)
        first.compile(SETTINGS, refines=False)
        expected = np.asarray(first(*chunks, SETTINGS))

        def refuse(*_):
            raise AssertionError("traced")

        monkeypatch.setattr(SeparationModel, "condition", refuse)
        second = ChunkSeparator(model, params, batch_size=8)
        second.compile(SETTINGS, refines=False)
        assert np.array_equal(second(*chunks, SETTINGS), expected)
        others = (
            (second, SETTINGS, True),
            (ChunkSeparator(model, params, batch_size=16), SETTINGS, False),
            (second, dataclasses.replace(SETTINGS, sampler="ab2"), False),
        )
        for separator, settings, refines in others:
            with pytest.raises(AssertionError, match="traced"):
                separator.compile(settings, refines=refines)
        for kept in tmp_path.glob("traced-*"):
            kept.write_bytes(kept.read_bytes()[:-1])
        with pytest.raises(AssertionError, match="traced"):  # damaged
            ChunkSeparator(model, params, batch_size=8).compile(SETTINGS, refines=False)
        monkeypatch.setattr(traces, "_code_digest", lambda: b"other code")
        with pytest.raises(AssertionError, match="traced"):
            ChunkSeparator(model, params, batch_size=8).compile(SETTINGS, refines=False)
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
