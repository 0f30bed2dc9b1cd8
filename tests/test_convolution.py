"""The forms in which convolutions are computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax.models import convolution
from diffsep_jax.models.convolution import convolve
from diffsep_jax.models.layers import conv


@pytest.mark.parametrize("form", ["channels_last", "taps"])
def test_another_form_of_convolution_is_the_convolution(form):
    """Outputs and gradients, float32 and bfloat16, kernels of odd and even length."""
    x = jax.random.normal(jax.random.key(0), (2, 50, 8))
    for kernel_size, dtype, tolerance in (
        (3, "float32", 1e-5),
        (4, "float32", 1e-5),
        (5, "float32", 1e-5),
        (3, "bfloat16", 0.05),
    ):
        native, other = (conv(6, kernel_size, kind, dtype, "conv") for kind in ("native", form))
        variables = native.init(jax.random.key(1), x)

        def loss(variables, x, layer):
            return jnp.sum(jnp.sin(layer.apply(variables, x).astype(jnp.float32)))

        ours, theirs = (jax.grad(loss, (0, 1))(variables, x, layer) for layer in (other, native))
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=tolerance, rtol=tolerance),
            (other.apply(variables, x).astype(jnp.float32), ours),
            (native.apply(variables, x).astype(jnp.float32), theirs),
        )


def test_a_gpu_without_an_algorithm_takes_the_sum_over_taps(monkeypatch):
    """Which form is taken is tried once for each type, also while a program is traced."""
    tried = []

    def native(inputs, kernel):
        tried.append(inputs.dtype.name)
        if inputs.dtype == jnp.bfloat16:
            raise jax.errors.JaxRuntimeError("INTERNAL: no valid config")
        return inputs

    forms = {"native": lambda x, _: x, "taps": lambda x, _: x + 1}
    monkeypatch.setattr(convolution, "_native", native)
    monkeypatch.setattr(convolution, "_FORMS", forms)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    convolution._native_compiles.cache_clear()
    try:
        for dtype, value in (("bfloat16", 1), ("float32", 0)) * 2:
            x, kernel = jnp.zeros((1, 16, 8), dtype), jnp.zeros((3, 8, 8), dtype)
            assert jnp.all(jax.jit(lambda *given: convolve(*given))(x, kernel) == value)
        assert tried == ["bfloat16", "float32"]
    finally:
        convolution._native_compiles.cache_clear()
