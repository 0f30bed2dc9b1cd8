"""The step over a mesh: what the devices say to each other, and that the result does not depend."""

import dataclasses

import jax
import micro
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import UserError
from diffsep_jax.training.optimizer import make_optimizer
from diffsep_jax.training.sharding import BatchLayout, MeshConfig, make_mesh, state_sharding
from diffsep_jax.training.step import step_arguments, train_program
from launch.compile_for_tpu import collectives

# Adam moves a parameter by the sign of a gradient that is zero but for rounding: with a large
# learning rate one such parameter would be seen, so this one is small and the first moments, which
# are sums of gradients, are compared too.
OPTIMIZER = dataclasses.replace(micro.TRAIN.optimizer, learning_rate=1e-4)


def config_of(data, fsdp, micro_batches=1, method="adamw"):
    return dataclasses.replace(
        micro.TRAIN,
        optimizer=dataclasses.replace(OPTIMIZER, method=method),
        micro_batches=micro_batches,
        mesh=MeshConfig(data=data, fsdp=fsdp, min_shard_size=64),
    )


def program(model, config):
    mesh = make_mesh(config.mesh, jax.devices()[: config.mesh.data * config.mesh.fsdp])
    layout = BatchLayout(mesh, micro.BATCH_SIZE, config.micro_batches)
    return train_program(model, config, mesh), layout


def three_steps(model, config, state=None):
    """From the program's own first state or another: that state, parameters, first moments, and
    each step's losses and gradient norm.
    """
    steps, layout = program(model, config)
    everywhere = NamedSharding(layout.mesh, P())
    with jax.set_mesh(layout.mesh):
        if state is None:
            state = steps.init(jax.random.key(0))
        first = jax.device_get(state)
        key = jax.device_put(jax.random.key(7), everywhere)
        metrics = []
        for i in range(3):
            state, values = steps.step(state, layout.put(micro.batch(i, model)), key)
            metrics.append([float(values[name]) for name in sorted(values)])
    return first, flat(state.params), flat(state.optimizer[1].mu), np.array(metrics)


def flat(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def assert_close(ours, theirs, tolerance):
    assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(theirs)


@pytest.fixture(scope="module", params=micro.FAMILIES)
def model(request):
    return micro.FAMILIES[request.param]


@pytest.fixture(scope="module")
def on_one_device(model):
    return three_steps(model, config_of(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "fsdp", "micro_batches", "own_start"),
    [(8, 1, 1, False), (1, 8, 1, False), (2, 4, 1, True), (2, 2, 2, False)],
)
def test_mesh_and_micro_batches_change_nothing(
    model, on_one_device, data, fsdp, micro_batches, own_start
):
    """Three steps agree with one device's to 2e-6 of the norm, parameters and first moments."""
    first, *theirs = on_one_device
    config = config_of(data, fsdp, micro_batches)
    ours_first, *ours = three_steps(model, config, None if own_start else first)
    assert_close(flat(ours_first.params), flat(first.params), 2e-6)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert_close(mine, other, 2e-6)
    np.testing.assert_allclose(ours[2], theirs[2], rtol=2e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_training_through_the_sampler_is_the_same_on_a_mesh():
    """Each step by another number of the sampler's steps; on two devices in micro-batches, too."""
    unrolled = {"unrolled_steps": (1, 2)}
    one = dataclasses.replace(config_of(1, 1), **unrolled)
    first, *theirs = three_steps(micro.MODEL, one)
    _, *ours = three_steps(
        micro.MODEL, dataclasses.replace(config_of(1, 2, micro_batches=2), **unrolled), first
    )
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert_close(mine, other, 2e-6)
    np.testing.assert_allclose(ours[2], theirs[2], rtol=2e-6)


def test_muon_sees_whole_matrices_whatever_the_mesh(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    del shapes["generator"]  # its matrices are like the conditioner's
    rng = np.random.default_rng(0)
    params, *gradients = (
        jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
        for _ in range(3)
    )
    results = []
    for data, fsdp in ((1, 1), (2, 4)):
        config = config_of(data, fsdp, method="muon")
        optimizer = make_optimizer(config.optimizer, config.num_steps)
        mesh = make_mesh(config.mesh, jax.devices()[: data * fsdp])
        sharding = state_sharding(shapes, mesh, config.mesh.min_shard_size)

        @jax.jit
        def step(params, state, gradients, optimizer=optimizer):
            with jax.numpy_dtype_promotion("standard"):
                return optimizer.update(gradients, state, params)

        placed = jax.device_put(params, sharding)
        state = optimizer.init(placed)
        for each in gradients:
            updates, state = step(placed, state, jax.device_put(each, sharding))
        results.append(flat(updates))
    assert_close(*results, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "fsdp", "micro_batches"), [(8, 1, 1), (2, 4, 1), (1, 4, 2)])
def test_the_step_holds_exactly_the_collectives_it_should(data, fsdp, micro_batches):
    """FSDP: each split parameter gathered once, its gradient reduce-scattered once; the rest is
    reduced; nothing else moves, in no micro-batch, least of all activations.
    """
    steps, layout = program(micro.MODEL, config_of(data, fsdp, micro_batches))
    arguments = step_arguments(steps, micro.MODEL, layout.mesh, micro.BATCH_SIZE)
    with jax.set_mesh(layout.mesh):
        text = steps.step.lower(*arguments).compile().as_text()
    found = {  # all float32
        kind: [size // 4 for size in sizes] for kind, sizes in collectives(text).items()
    }
    leaves = jax.tree.leaves(steps.state.params)
    split = [leaf.size for leaf in leaves if "fsdp" in leaf.sharding.spec]
    whole = [leaf.size for leaf in leaves if "fsdp" not in leaf.sharding.spec]
    assert bool(split) == (fsdp > 1)
    assert sorted(found.pop("all-gather", [])) == sorted(split)
    parts = sorted(size // fsdp for size in split)
    assert sorted(found.pop("reduce-scatter", [])) == parts
    reduced = sum(found.pop("all-reduce"))
    over_data = sum(parts) if data > 1 else 0
    # Two biases are added up in the bottleneck: one gradient, which the compiler reduces once,
    # unless it is added up over micro-batches.
    same = micro.MODEL.conditioner.widths[-1] if micro_batches == 1 else 0
    scalars = reduced - (sum(whole) - same + over_data)
    losses, sums_of_squares = 4, 2 * len(split)  # of the norm, which is logged and clipped by
    assert losses <= scalars <= losses + sums_of_squares
    assert not found


def test_parameters_moments_and_average_lie_alike_and_small_ones_everywhere():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    shapes = {"wide": (8, 12), "odd": (7, 9), "small": (4,), "tall": (64, 4)}
    leaves = {k: jax.ShapeDtypeStruct(shape, np.float32) for k, shape in shapes.items()}
    specs = jax.tree.map(lambda s: s.spec, state_sharding(leaves, mesh, min_shard_size=16))
    assert specs == {"wide": P(None, "fsdp"), "odd": P(), "small": P(), "tall": P("fsdp", None)}


@pytest.mark.parametrize(("data", "fsdp"), [(4, 1), (2, 2), (3, -1), (-1, -1), (0, 8)])
def test_a_mesh_that_does_not_fit_is_refused(data, fsdp):
    with pytest.raises(UserError, match=f"mesh data={data} fsdp={fsdp} does not fit 8 devices"):
        make_mesh(MeshConfig(data=data, fsdp=fsdp))


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(make_mesh(MeshConfig(data=-1, fsdp=4)).shape) == {"data": 2, "fsdp": 4}
    assert dict(make_mesh(MeshConfig(data=1, fsdp=-1)).shape) == {"data": 1, "fsdp": 8}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(
        UserError, match="batch_size is 24; expected a multiple of 8 devices x 2 micro"
    ):
        BatchLayout(make_mesh(MeshConfig()), 24, micro_batches=2)


def test_rows_land_on_the_mesh_in_their_order():
    layout = BatchLayout(make_mesh(MeshConfig(data=2, fsdp=4)), 16)
    assert layout.rows == list(range(16))
    values = np.arange(32, dtype=np.float32).reshape(16, 2)
    np.testing.assert_array_equal(layout.put({"x": values})["x"], values)
