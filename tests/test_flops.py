"""FLOPs of a function against closed forms, and of the model against sums over its layers."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import pytest
from jax.sharding import PartitionSpec as P

from diffsep_jax.flops import attention_flops, count_flops, sampling_flops, train_step_flops
from diffsep_jax.models.attention import attention
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.splash import splash_attention

BATCH, TIME, WIDTH = 2, 24, 8
SEGMENT = micro.MODEL.segment
PRODUCT = 2 * TIME * WIDTH * WIDTH  # [TIME, WIDTH] @ [WIDTH, WIDTH]

both_families = pytest.mark.parametrize("model", micro.FAMILIES.values(), ids=micro.FAMILIES)


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


X, W = array(TIME, WIDTH), array(WIDTH, WIDTH)


def flops_of(module, x):
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    return count_flops(module.apply, params, x)


def test_dense():
    assert flops_of(nn.Dense(5), array(BATCH, TIME, WIDTH)) == 2 * BATCH * TIME * WIDTH * 5


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(groups):
    module = nn.Conv(6, (3,), feature_group_count=groups)
    expected = 2 * BATCH * TIME * 3 * (WIDTH // groups) * 6
    assert flops_of(module, array(BATCH, TIME, WIDTH)) == expected


def test_elementwise_work_counts_nothing():
    assert count_flops(lambda x: jnp.fft.rfft(jnp.tanh(x) * x + 1).real.sum(), X) == 0


def test_gradients_of_both_factors_are_three_products():
    assert count_flops(jax.grad(lambda w, x: (x @ w).sum(), (0, 1)), W, X) == 3 * PRODUCT


def test_a_convolutions_gradients_cost_as_much_as_it_does():
    module = nn.Conv(6, (3,))
    x = array(BATCH, TIME, WIDTH)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    gradients = jax.grad(lambda params, x: jnp.square(module.apply(params, x)).sum(), (0, 1))
    assert count_flops(gradients, params, x) == 3 * 2 * BATCH * TIME * 3 * WIDTH * 6


def test_rematerialisation_counts_as_often_as_it_is_done():
    def loss(w, x):
        return jnp.square(jnp.tanh(jnp.tanh(x @ w) @ w)).sum()

    plain = count_flops(jax.grad(loss), W, X)
    assert plain == (2 + 3) * PRODUCT  # x itself needs no gradient
    assert count_flops(jax.grad(jax.checkpoint(loss)), W, X) == plain + 2 * PRODUCT


def test_loops():
    def body(x, _):
        return x @ jnp.ones((WIDTH, WIDTH)), None

    assert count_flops(lambda x: jax.lax.scan(body, x, length=7), X) == 7 * PRODUCT

    def loop(n, x):
        return jax.lax.fori_loop(0, n, lambda _, x: body(x, None)[0], x)

    steps = jax.ShapeDtypeStruct((), jnp.int32)
    assert count_flops(loop, steps, X) == PRODUCT
    assert count_flops(loop, steps, X, while_trips=50) == 50 * PRODUCT

    def loop_of_loops(n, x):
        return jax.lax.fori_loop(0, n, lambda _, x: loop(n, x), x)

    assert count_flops(loop_of_loops, steps, X, while_trips=50) == 50 * PRODUCT


def test_a_conditional_counts_its_largest_branch():
    def function(flag, x, w):
        return jax.lax.cond(flag, lambda: x @ w, lambda: x @ w @ w)

    flag = jax.ShapeDtypeStruct((), jnp.bool)
    assert count_flops(function, flag, X, W) == 2 * PRODUCT


def test_jit_and_custom_gradients_are_looked_into():
    product = jax.custom_vjp(lambda x, w: x @ w)
    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, None))
    assert count_flops(jax.jit(product), X, W) == PRODUCT
    assert count_flops(jax.grad(lambda x, w: product(x, w).sum()), X, W) == 2 * PRODUCT


def test_a_shard_map_counts_on_all_devices():
    mesh = jax.make_mesh((2, 4), ("a", "b"), (jax.sharding.AxisType.Auto,) * 2)
    split = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(P(("a", "b")), P()), out_specs=P(("a", "b"))
    )
    assert count_flops(split, X, W) == PRODUCT  # the rows are cut into eight
    copied = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=P(), out_specs=P())
    assert count_flops(copied, X, W) == 8 * PRODUCT  # each device does it all


def attention_arguments(time):
    return (array(BATCH, time, 2, WIDTH),) * 3


def test_attention_is_four_time_squared_width_forward_and_twice_that_backward():
    expected = BATCH * 4 * TIME**2 * 2 * WIDTH
    plain = functools.partial(attention, backend="plain")
    assert count_flops(plain, *attention_arguments(TIME)) == expected
    loss = jax.grad(lambda *qkv: jnp.square(plain(*qkv)).sum(), (0, 1, 2))
    assert count_flops(loss, *attention_arguments(TIME)) == 3 * expected


def test_a_pallas_kernel_counts_on_its_whole_grid():
    time = 2 * 1024  # no padding
    forward = BATCH * 4 * time**2 * 2 * WIDTH
    assert count_flops(splash_attention, *attention_arguments(time)) == forward
    loss = jax.grad(lambda *qkv: jnp.square(splash_attention(*qkv)).sum(), (0, 1, 2))
    # Backward, one kernel for the keys and one for the queries: seven products instead of four,
    # and before them the sums over output x gradient.
    row_sums = 2 * BATCH * time * 2 * WIDTH
    assert count_flops(loss, *attention_arguments(time)) == forward * (2 + 7) / 2 + row_sums


@both_families
def test_sampling_is_the_conditioner_once_and_the_generator_each_step(model):
    conditioner, once, often = (sampling_flops(model, 1, steps) for steps in (0, 1, 7))
    assert often - conditioner == 7 * (once - conditioner) > 0
    assert sampling_flops(model, 6, 7) == 6 * often


@pytest.mark.parametrize(
    ("family", "transforms", "transforms_in_training", "least"),
    [("waveform", 0, 0, 2.8), ("spectral", 7, 14, 2.55)],
)
def test_training_is_about_three_forward_passes(family, transforms, transforms_in_training, least):
    """Less what the first layers save: the audio needs no gradient. Transforms have no weights."""
    model = micro.FAMILIES[family]
    transform = 2 * model.segment * 2 * 1024  # of two channels
    forward = sampling_flops(model, 1, 1) - transforms * transform
    step = train_step_flops(model, 1) - transforms_in_training * transform
    assert least * forward < step < 3.1 * forward
    assert train_step_flops(model, 4) == 4 * train_step_flops(model, 1)


@both_families
def test_model_flops_do_not_depend_on_how_it_is_computed(model):
    compute = Compute(attention="blockwise", convolution="taps", remat="full", dtype="bfloat16")
    other = dataclasses.replace(model, compute=compute)
    assert train_step_flops(other, 2) == train_step_flops(model, 2)
    assert sampling_flops(other, 2, 3) == sampling_flops(model, 2, 3)


def test_the_formula_for_attention_is_what_grows_with_time_squared():
    def quadratic_part(steps):
        longer = (dataclasses.replace(micro.MODEL, segment=n * SEGMENT) for n in (1, 2, 3))
        first, second, third = (sampling_flops(model, 1, steps) for model in longer)
        return (first - 2 * second + third) / 2

    conditioner = attention_flops(micro.MODEL.conditioner, SEGMENT)
    generator = attention_flops(micro.MODEL.generator, SEGMENT)
    assert quadratic_part(2) == conditioner + 2 * generator
    assert conditioner > generator > 0
