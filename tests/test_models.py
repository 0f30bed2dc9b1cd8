"""The networks: the paper's sizes, shapes at every level, and what the output depends on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

import configs
from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.layers import GroupNorm
from diffsep_jax.models.model import (
    model_from_json,
    model_to_json,
    precondition,
)
from diffsep_jax.models.waveform.blocks import average_pool, fold_time, unfold_time
from diffsep_jax.models.waveform.conditioner import Conditioner
from diffsep_jax.models.waveform.generator import Generator

TINY = configs.get("tiny").model


def parameters(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "generator", "conditioner"),
    [
        ("diff_dmx_rt_musdb", 15.95e6, 82.66e6),
        ("diff_dmx_rt_extra", 15.95e6, 82.66e6),
        ("diff_dmx_extra", 15.95e6, 55.34e6),
    ],
)
def test_parameter_counts_are_the_papers(name, generator, conditioner):
    params = jax.eval_shape(configs.get(name).model.init, jax.random.key(0))
    heads = {k: v for k, v in params["conditioner"].items() if k.endswith("_head")}
    assert set(heads) == {"latent_head", "estimate_head"}
    assert parameters(params["generator"]) == pytest.approx(generator, rel=1e-3)
    without_heads = parameters(params["conditioner"]) - parameters(heads)
    assert without_heads == pytest.approx(conditioner, rel=1e-3)


def test_shapes_at_every_level_of_the_papers_networks():
    model = configs.get("diff_dmx_rt_musdb").model
    segment, batch = model.segment, 2
    audio = jax.ShapeDtypeStruct((batch, segment, 2), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def networks(params, audio):
        conditioning, inner = model.conditioner.apply(
            {"params": params["conditioner"]},
            audio,
            with_latent=True,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        sigma = jnp.full((batch,), 0.5)
        v, gen_inner = model.generator.apply(
            {"params": params["generator"]},
            audio,
            sigma,
            audio,
            conditioning,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return conditioning, v, inner["intermediates"], gen_inner["intermediates"]

    conditioning, v, inner, gen_inner = jax.eval_shape(networks, params, audio)
    assert v.shape == conditioning.estimate.shape == conditioning.latent_estimate.shape
    assert v.shape == (batch, segment, 2)
    frames = [segment, segment, segment // 2, segment // 8, segment // 8, segment // 32]
    frames += [segment // 32, segment // 128]
    assert [e.shape for e in conditioning.embeddings] == [
        (batch, frames[i], model.conditioner.widths[i]) for i in (3, 4, 5, 6)
    ]
    for captured, network, last_block in (
        (inner, model.conditioner, lambda side, i: f"{side}_block_{i}"),
        (
            gen_inner,
            model.generator,
            lambda side, i: f"{side}_block_{i}_{model.generator.blocks[i] - 1}",
        ),
    ):
        for level in range(7):
            expected = (batch, frames[level], network.widths[level])
            for side in ("encoder", "decoder"):
                (out,) = captured[last_block(side, level)]["__call__"]
                assert out.shape == expected
            (down,) = captured[f"down_{level}"]["__call__"]
            assert down.shape == (batch, frames[level + 1], network.widths[level + 1])


@pytest.fixture(scope="module", params=micro.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def params(family):
    return micro.random_params(micro.FAMILIES[family])


@pytest.mark.parametrize(
    ("family", "extra_inputs"),
    [("waveform", False), ("waveform", True), ("spectral", True)],
    indirect=["family"],
)
def test_velocity_depends_on_mixture_x_and_sigma(family, params, extra_inputs):
    """By gradients; without the extra inputs the mixture acts through the embeddings alone."""
    model = micro.FAMILIES[family]
    if not extra_inputs:
        generator = dataclasses.replace(model.generator, use_mixture=False, use_estimate=False)
        model = dataclasses.replace(model, generator=generator, estimate_error=None)
        kernel = params["generator"]["conv_in"]["kernel"][:, : 2 * generator.patch_size]
        conv_in = params["generator"]["conv_in"] | {"kernel": kernel}
        params = params | {"generator": params["generator"] | {"conv_in": conv_in}}
    keys = jax.random.split(jax.random.key(2), 3)
    mixture, x, direction = (jax.random.normal(k, (1, model.segment, 2)) for k in keys)

    @jax.jit
    def gradients(mixture, x, sigma):
        def score(mixture, x, sigma):
            conditioning = model.condition(params, mixture)
            v = model.velocity(params, x, sigma, mixture, conditioning)
            return jnp.mean(v * direction)

        return jax.grad(score, argnums=(0, 1, 2))(mixture, x, sigma)

    for name, gradient in zip(
        ("mixture", "x", "sigma"), gradients(mixture, x, jnp.array([0.4])), strict=True
    ):
        assert jnp.all(jnp.isfinite(gradient)), name
        assert jnp.max(jnp.abs(gradient)) > 1e-9, name


def test_the_diffusion_loss_does_not_train_the_direct_estimate(family, params):
    """In the spectral family nothing of the conditioner."""
    model = micro.FAMILIES[family]
    audio = jax.random.normal(jax.random.key(3), (1, model.segment, 2))

    @jax.jit
    def gradient(params):
        def score(params):
            conditioning = model.condition(params, audio)
            return jnp.mean(model.velocity(params, audio, jnp.array([0.4]), audio, conditioning))

        return jax.grad(score)(params)

    gradients = gradient(params)
    untrained = gradients["conditioner"]
    if family == "waveform":
        untrained = untrained["estimate_head"]
    assert all(jnp.all(g == 0) for g in jax.tree.leaves(untrained))
    assert any(jnp.any(g != 0) for g in jax.tree.leaves(gradients["generator"]))


def test_zero_output_preconditioned_is_the_gaussian_posterior_mean():
    """Against a regression of v on x over many draws of x0 ~ N(m, e^2)."""
    error, sigma, estimate = 0.3, 0.6, 0.8
    rng = np.random.default_rng(0)
    x0 = estimate + error * rng.standard_normal(200_000)
    eps = rng.standard_normal(200_000)
    alpha, beta = np.cos(np.pi / 2 * sigma), np.sin(np.pi / 2 * sigma)
    x, v = alpha * x0 + beta * eps, alpha * eps - beta * x0
    slope, intercept = np.polyfit(x, v, 1)
    grid = np.linspace(-1, 1, 5)
    shape = (1, 5, 1)
    arguments = (
        jnp.asarray(grid, jnp.float32).reshape(shape),
        jnp.array([sigma]),
        jnp.full(shape, estimate),
        error,
    )
    mean = precondition(jnp.zeros(shape), *arguments)
    np.testing.assert_allclose(mean[0, :, 0], slope * grid + intercept, atol=0.01)
    deviation = precondition(jnp.ones(shape), *arguments) - mean
    residual = np.std(v - slope * x - intercept)
    np.testing.assert_allclose(deviation[0, :, 0], residual, rtol=0.01)


def test_products_that_become_audio_are_exact_on_every_platform(family):
    """By default, TPUs round the factors of float32 products to 8 bits."""
    model = dataclasses.replace(micro.FAMILIES[family], compute=Compute(dtype="bfloat16"))
    audio = jax.ShapeDtypeStruct((1, model.segment, 2), jnp.float32)
    sigma = jax.ShapeDtypeStruct((1,), jnp.float32)

    def estimate_and_velocity(params, mixture, x, sigma):
        conditioning = model.condition(params, mixture)
        return conditioning.estimate, model.velocity(params, x, sigma, mixture, conditioning)

    params = jax.eval_shape(model.init, jax.random.key(0))
    program = jax.jit(estimate_and_velocity).trace(params, audio, audio, sigma)
    text = program.lower(lowering_platforms=("tpu",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    in_float32 = [line for line in products if "xbf16>" not in line]
    assert 0 < len(in_float32) < len(products)
    assert all("HIGHEST" in line for line in in_float32)


def test_bfloat16_compute_keeps_float32_parameters_and_output(family, params):
    model = dataclasses.replace(micro.FAMILIES[family], compute=Compute(dtype="bfloat16"))
    audio = jax.random.normal(jax.random.key(4), (1, model.segment, 2))

    @jax.jit
    def outputs(model_params, audio):
        conditioning = model.condition(model_params, audio)
        sigma = jnp.array([0.5])
        return conditioning, model.velocity(model_params, audio, sigma, audio, conditioning)

    conditioning, v = jax.eval_shape(outputs, params, audio)
    assert all(e.dtype == jnp.bfloat16 for e in conditioning.embeddings)
    assert v.dtype == conditioning.estimate.dtype == jnp.float32
    if family == "spectral":
        assert conditioning.log_scale.dtype == jnp.float32
    initial = jax.eval_shape(model.init, jax.random.key(0))
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(initial))


def test_group_norm_gives_each_group_zero_mean_and_unit_variance():
    x = 3 + 2 * jax.random.normal(jax.random.key(5), (2, 50, 16))
    norm = GroupNorm(groups=4)
    y = norm.apply(norm.init(jax.random.key(0), x), x).reshape(2, 50, 4, 4)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-4)


def test_folding_time_is_inverted_by_unfolding_and_keeps_order():
    x = jnp.arange(24.0).reshape(1, 12, 2)
    np.testing.assert_array_equal(unfold_time(fold_time(x, 4), 4), x)
    np.testing.assert_array_equal(fold_time(x, 4)[0, 0], jnp.arange(8.0))
    np.testing.assert_array_equal(average_pool(x, 3)[0, 0], x[0, :3].mean(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment": 1000}, "segment is 1000"),
        ({"target_rms": 0.0}, "target_rms is 0.0"),
        ({"target_rms": float("nan")}, "target_rms is nan"),
        ({"target_rms": float("inf")}, "target_rms is inf"),
        ({"estimate_error": float("nan")}, "estimate_error is nan"),
        ({"estimate_error": -1.0}, "estimate_error is -1.0"),
        ({"generator": Generator(widths=(8, 8))}, "generator.widths has 2"),
        ({"conditioner": Conditioner()}, "injection levels"),
    ],
)
def test_a_model_that_does_not_fit_itself_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(TINY, **change)


BAD_FIELDS = [
    ("widths", (32, 48, 0, 64)),
    ("factors", ()),
    ("factors", (4, -4, 1)),
    ("patch_size", 0),
    ("groups", 0),
    ("groups", 7),
    ("attention_levels", -1),
    ("attention_levels", 4),
    ("injection_levels", 4),
    ("attention_width", 0),
    ("attention_heads", 3),
]


@pytest.mark.parametrize(
    ("network", "field", "value"),
    [
        *(("generator", *bad) for bad in BAD_FIELDS),
        ("generator", "blocks", (1, 0, 1)),
        ("generator", "blocks", (1, 1)),
        ("generator", "fourier_features", 15),
        ("generator", "fourier_scale", float("nan")),
        ("generator", "embedding_width", 0),
        *(("conditioner", *bad) for bad in BAD_FIELDS),
        ("conditioner", "groups", 32),  # divides 32 and 64, not their halves
        ("conditioner", "transformer_layers", -1),
        ("conditioner", "transformer_width", 0),
        ("conditioner", "transformer_heads", 3),
        ("conditioner", "transformer_heads", 32),  # heads of one channel cannot be rotated
    ],
)
def test_a_bad_field_of_a_network_is_refused_by_name(network, field, value):
    changed = getattr(TINY, network).clone(**{field: value})
    with pytest.raises(UserError, match=f"^{network}.{field} (is|has) .*; expected"):
        dataclasses.replace(TINY, **{network: changed})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("segment", 8192.0, r"Expected `int`, got `float` - at `\$.segment`"),
        ("target_rms", "loud", r"Expected `float`.* at `\$.target_rms`"),
        ("family", "cepstral", "family is 'cepstral'; expected waveform or spectral"),
        ("format", "diffsep-jax 999", "format is 'diffsep-jax 999'; expected 'diffsep-jax 1'"),
        ("compute", {}, "unknown field `compute`"),
        ("generator", 3, r"Expected `object`, got `int` - at `\$.generator`"),
        ("generator.widths", [8, "x"], r"at `\$.generator.widths\[1\]`"),
        ("generator.use_mixture", "yes", r"at `\$.generator.use_mixture`"),
        ("generator.name", "x", "unknown field `name`"),
        ("conditioner.skips", "concat", r"'concat' - at `\$.conditioner.skips`"),
    ],
)
def test_a_bad_field_of_a_file_is_refused_by_name(path, value, message):
    values = model_to_json(TINY)
    *networks, field = path.split(".")
    (values[networks[0]] if networks else values)[field] = value
    with pytest.raises(UserError, match=message):
        model_from_json(values)


def remat_loss(model, compute, batch=2):
    model = dataclasses.replace(model, compute=compute)
    audio = jax.random.normal(jax.random.key(1), (batch, model.segment, 2))

    def loss(params):
        conditioning = model.condition(params, audio)
        v = model.velocity(params, audio, jnp.linspace(0.3, 0.8, batch), audio, conditioning)
        return jnp.mean(jnp.square(v - audio)) + jnp.mean(jnp.square(conditioning.estimate))

    return loss


@pytest.mark.parametrize(
    ("family", "convolution", "dots", "full"),
    [
        ("waveform", "native", 2.2, 1.2),
        ("waveform", "channels_last", 2.2, 1.2),
        ("waveform", "taps", 2.2, 1.2),
        ("spectral", "native", 1.3, 1.05),
        ("spectral", "taps", 1.3, 1.05),
    ],
)
def test_each_rematerialisation_policy_keeps_less_than_the_one_before(
    family, convolution, dots, full
):
    """`dots` keeps a convolution's sum over taps, not each tap's product."""
    model = TINY if family == "waveform" else micro.SPECTRAL
    params = jax.eval_shape(model.init, jax.random.key(0))

    def residuals(remat, batch):
        loss = remat_loss(model, Compute(remat=remat, convolution=convolution), batch)
        kept = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(kept))

    # For one example more: parameters and the transforms' matrices are kept in any case.
    kept = [residuals(remat, 2) - residuals(remat, 1) for remat in ("none", "dots", "full")]
    assert kept[0] > dots * kept[1]
    assert kept[1] > full * kept[2]


@pytest.mark.parametrize("family", micro.FAMILIES)
def test_rematerialisation_changes_no_gradient(family):
    """Of the spectral family with random parameters: its zero heads would stop the gradient."""
    model = micro.FAMILIES[family]
    if family == "spectral":
        params = micro.random_params(model)
    else:
        params = jax.jit(model.init)(jax.random.key(0))
    expected, *others = (
        jax.jit(jax.grad(remat_loss(model, Compute(remat=remat))))(params)
        for remat in ("none", "dots", "full")
    )
    for each in others:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), each, expected
        )
