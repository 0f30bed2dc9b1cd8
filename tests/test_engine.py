"""The compiled chunk program: what the result does not depend on, and what compiles nothing."""

import jax
import micro
import numpy as np
import pytest

from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings

SETTINGS = SamplerSettings(steps=4, eta=0.6, cutoff_hz=3000.0, seed=3)


@pytest.fixture(scope="module")
def params():
    """Random parameters: many of the initial ones are zero."""
    params = jax.jit(micro.MODEL.init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.fixture(scope="module")
def chunks():
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((8, micro.MODEL.segment, 2)).astype(np.float32)
    return mixture, np.arange(8, dtype=np.int32) * 400


@pytest.fixture(scope="module")
def on_eight(params):
    return ChunkSeparator(micro.MODEL, params, batch_size=8)


@pytest.fixture(scope="module")
def reference(on_eight, chunks):
    return on_eight(*chunks, SETTINGS)


def test_one_and_eight_devices_agree(params, chunks, reference):
    on_one = ChunkSeparator(micro.MODEL, params, batch_size=8, devices=jax.devices()[:1])
    np.testing.assert_allclose(on_one(*chunks, SETTINGS), reference, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batch_sizes_agree(params, chunks, reference, batch_size):
    separator = ChunkSeparator(
        micro.MODEL, params, batch_size=batch_size, devices=jax.devices()[:1]
    )
    mixture, start = chunks
    parts = [
        separator(mixture[i : i + batch_size], start[i : i + batch_size], SETTINGS)
        for i in range(0, 8, batch_size)
    ]
    np.testing.assert_allclose(np.concatenate(parts), reference, atol=1e-4)


def test_a_batch_is_rounded_up_to_the_devices(params):
    assert ChunkSeparator(micro.MODEL, params, batch_size=3).batch_size == 8


def test_runtime_values_compile_nothing(params, chunks):
    separator = ChunkSeparator(micro.MODEL, params, batch_size=8)
    outputs = {
        (steps, eta, cutoff, seed): separator(
            *chunks, SamplerSettings(steps=steps, eta=eta, cutoff_hz=cutoff, seed=seed)
        )
        for steps in (1, 3)
        for eta in (0.0, 0.4)
        for cutoff in (None, 5000.0)
        for seed in (0, 1)
    }
    assert separator.num_compilations == 1
    different = {output.tobytes() for output in outputs.values()}
    # eta and cutoff do nothing at T = 1, the cutoff nothing at eta = 0.
    assert len(different) == 2 * (1 + 3)
    separator(*chunks, SamplerSettings(sampler="direct"))
    assert separator.num_compilations == 2


def test_the_same_seed_gives_the_same_bytes(on_eight, chunks, reference):
    assert on_eight(*chunks, SETTINGS).tobytes() == reference.tobytes()


def test_the_noise_does_not_depend_on_jaxs_default_generator(params, chunks, monkeypatch):
    separator = ChunkSeparator(micro.MODEL, params, batch_size=8)
    keys = []
    monkeypatch.setattr(
        separator, "_ddim", lambda params, mixture, start, key, *_: keys.append(key) or mixture
    )
    separator(*chunks, SETTINGS)
    with jax.default_prng_impl("rbg"):
        separator(*chunks, SETTINGS)
    assert [jax.random.key_impl(key) for key in keys] == ["threefry2x32"] * 2


def test_the_stride_is_the_deeper_networks(params):
    separator = ChunkSeparator(micro.MODEL, params)
    assert separator.stride == micro.MODEL.generator.stride == 64
    assert separator.segment % separator.stride == 0


def test_the_result_depends_on_the_position(on_eight, chunks, reference):
    mixture, start = chunks
    moved = on_eight(mixture, start + 1, SETTINGS)
    assert np.abs(moved - reference).max() > 1e-3


@pytest.mark.parametrize("sampler", ["ddim", "direct"])
def test_a_track_does_not_depend_on_batch_or_devices(params, sampler):
    """From a mono track of another rate: many chunks, the last batch only partly filled."""
    waveform = 0.1 * np.random.default_rng(5).standard_normal(4000).astype(np.float32)
    results = []
    for batch_size, devices in ((1, 1), (4, 1), (8, 8)):
        separator = Separator(micro.MODEL, params, batch_size=batch_size)
        separator._separate_chunks = ChunkSeparator(
            micro.MODEL, params, batch_size=batch_size, devices=jax.devices()[:devices]
        )
        results.append(separator.separate(waveform, 48_000, sampler=sampler, steps=3))
    for other in results[1:]:
        np.testing.assert_allclose(other.vocals, results[0].vocals, atol=1e-4)
    vocals, accompaniment = results[0]
    assert vocals.shape == accompaniment.shape == waveform.shape
    ulp = np.spacing(np.maximum(np.abs(vocals), np.abs(waveform)))
    assert np.all(np.abs(vocals + accompaniment - waveform) <= ulp)
    assert np.abs(vocals).max() > 0
