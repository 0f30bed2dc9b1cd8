"""JAX's global flags, which a shell or another library may set, change no result."""

import contextlib

import jax
import micro
import numpy as np
import pytest
import runs

from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.layers import standard_normals

FLAGS = {
    "jax_enable_x64": True,
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_default_prng_impl": "rbg",
    "jax_default_matmul_precision": "bfloat16",
}
"""Those that would change what is computed."""

NO_JIT = {"jax_disable_jit": True}

CHECKS = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_legacy_prng_key": "error",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_check_tracer_leaks": True,
    "jax_disable_most_optimizations": True,
}
"""Those that would raise an error for some programs, or compile them otherwise."""

SETTINGS = SamplerSettings(steps=3, eta=0.4, cutoff_hz=5000.0, seed=3)


@contextlib.contextmanager
def set_to(flags):
    before = {name: jax.config.values[name] for name in flags}
    try:
        for name, value in flags.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.fixture(scope="module")
def params():
    return micro.random_params(micro.MODEL)


def separate(params):
    mixture = np.random.default_rng(0).standard_normal((2, micro.MODEL.segment, 2), np.float32)
    separator = ChunkSeparator(micro.MODEL, params, batch_size=2, devices=jax.devices()[:1])
    return np.asarray(separator(mixture, np.array([0, 400], np.int32), SETTINGS))


@pytest.fixture(scope="module")
def reference(params):
    return separate(params)


@pytest.mark.parametrize("flags", [FLAGS, NO_JIT, CHECKS], ids=["values", "no jit", "checks"])
def test_separation_does_not_depend_on_the_flags(params, reference, flags):
    with set_to(flags):
        vocals = separate(params)
    assert vocals.dtype == np.float32
    np.testing.assert_allclose(vocals, reference, atol=1e-5 * np.abs(reference).max())


def test_training_does_not_depend_on_the_flags(undisturbed, tmp_path):
    with set_to(FLAGS | NO_JIT):
        state = runs.run(tmp_path, runs.VALIDATED, validation=runs.VALIDATION)
    runs.assert_equal(state, undisturbed[1])


def test_the_frequencies_of_noise_levels_are_those_of_the_models_so_far():
    """They are not stored, so they change never; any model in use depends on them."""
    expected = [1.6226422, 2.0252647, -0.43359444, -0.07861735]
    np.testing.assert_allclose(standard_normals(512)[:4], expected, rtol=1e-6)
    assert standard_normals(512).std() == pytest.approx(1.0, abs=0.1)
