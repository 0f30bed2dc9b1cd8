"""Training: restarts, meshes, the optimiser, and what stops a run."""

import dataclasses
import functools
import io
import itertools
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from rich.console import Console

from diffsep_jax.errors import UserError
from diffsep_jax.losses import LossWeights
from diffsep_jax.training import sharding
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.logging import RunLog
from diffsep_jax.training.loop import CHECKPOINTS, load_trained, train
from diffsep_jax.training.optimizer import (
    OptimizerConfig,
    learning_rate_schedule,
    make_optimizer,
)
from diffsep_jax.training.sharding import MeshConfig, make_mesh, state_sharding
from diffsep_jax.training.step import draw_noise_levels, init_state, train_step


def run(workdir, config=micro.TRAIN, model=micro.MODEL, batches=micro.batches_from, validation=()):
    workdir.mkdir(exist_ok=True)
    return train(
        model,
        config,
        train_batches=batches,
        validation_batches=validation,
        batch_size=micro.BATCH_SIZE,
        workdir=workdir,
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class CrashError(Exception):
    """Stands in for whatever ends a process."""


def crash_after(num_batches):
    return lambda step: itertools.chain(
        itertools.islice(micro.batches_from(step), num_batches), (_raise() for _ in range(1))
    )


def _raise():
    raise CrashError


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(workdir, final state) of a run left alone, validated at its end."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    config = dataclasses.replace(micro.TRAIN, validate_every=6, validation_sampler_steps=2)
    return workdir, run(workdir, config, validation=[micro.batch(1000)])


def records(workdir, kind="train"):
    lines = (workdir / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def test_a_run_that_crashed_and_went_on_equals_one_left_alone_bitwise(undisturbed, tmp_path):
    workdir, expected = undisturbed
    with pytest.raises(CrashError):
        run(tmp_path, batches=crash_after(5))  # the newest checkpoint is of step 4
    resumed = run(tmp_path)
    assert_equal(resumed, expected)
    steps = [r["step"] for r in records(tmp_path)]
    assert steps == [r["step"] for r in records(workdir)] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(records(tmp_path), records(workdir), strict=True):
        assert ours["loss"] == theirs["loss"]


def test_a_finished_run_stays_as_it_is(undisturbed):
    workdir, expected = undisturbed
    assert_equal(run(workdir, batches=crash_after(0)), expected)


def test_the_log_tells_losses_rates_and_validation(undisturbed):
    workdir, _ = undisturbed
    record = records(workdir)[-1]
    terms = record["diffusion"] + record["latent"] + record["reconstruction"]
    assert record["loss"] == pytest.approx(terms, rel=1e-5)
    for name in ("learning_rate", "gradient_norm", "examples_per_second", "data_wait_seconds"):
        assert record[name] >= 0, name
    (validation,) = records(workdir, "validation")
    assert {
        "loss_sigma_0.1",
        "loss_sigma_1.0",
        "utterance_sdr_direct",
        "utterance_sdr_ddim",
    } <= set(validation)
    # 10 log10(P(vocals) / P(mixture - vocals)), with vocals on for about half of the time.
    assert validation["utterance_sdr_mixture"] == pytest.approx(10 * np.log10(0.5 / 0.09), abs=1)


def test_the_exported_parameters_are_the_averaged_ones(undisturbed):
    workdir, state = undisturbed
    model, params = load_trained(workdir)
    assert model == micro.MODEL
    assert_equal(params, state.ema)


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    run(tmp_path, dataclasses.replace(micro.TRAIN, checkpoint_every=1, keep_checkpoints=2))
    steps = sorted(p.name for p in (tmp_path / CHECKPOINTS).iterdir() if p.name.isdigit())
    assert steps == ["5", "6"]


def test_ctrl_c_saves_and_a_second_run_goes_on(undisturbed, tmp_path):
    _, expected = undisturbed

    def interrupt_in_third_batch(step):
        for i, batch in enumerate(micro.batches_from(step)):
            if i == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batches=interrupt_in_third_batch)
    checkpoints = Checkpoints(tmp_path / CHECKPOINTS, keep=3)
    assert checkpoints.latest_step == 3
    checkpoints.close()
    assert_equal(run(tmp_path), expected)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    def poisoned(step):
        for i, batch in enumerate(micro.batches_from(step), start=step + 1):
            if i == 4:  # the step that a checkpoint is due at
                batch["vocals"] = np.full_like(batch["vocals"], np.inf)
            yield batch

    with pytest.raises(UserError, match=r"step 4: the loss is nan.*step 2 is saved"):
        run(tmp_path, batches=poisoned)
    _, params = load_trained(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("network", "field", "value"),
    [
        ("generator", "embedding_width", 24),
        ("conditioner", "transformer_layers", 0),  # fewer parameters, each of its old shape
        ("conditioner", "attention_heads", 1),  # no parameter differs
    ],
)
def test_a_run_of_another_network_is_refused(undisturbed, network, field, value):
    workdir, _ = undisturbed
    changed = dataclasses.replace(getattr(micro.MODEL, network), **{field: value})
    other = dataclasses.replace(micro.MODEL, **{network: changed})
    with pytest.raises(UserError, match=rf"another network: {network}\.{field} is .* and {value}"):
        run(workdir, model=other)


def test_a_checkpoint_of_another_network_is_refused(undisturbed, tmp_path):
    """Also where the folder's own record is lost, by the shapes."""
    workdir, _ = undisturbed
    shutil.copytree(workdir / CHECKPOINTS, tmp_path / CHECKPOINTS)
    generator = dataclasses.replace(micro.MODEL.generator, embedding_width=24)
    with pytest.raises(UserError, match=r"checkpoint is of another network: .* is .* there and"):
        run(tmp_path, model=dataclasses.replace(micro.MODEL, generator=generator))


def test_exporting_before_training_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run to export; train first"):
        load_trained(tmp_path)


def test_exporting_does_not_disturb_a_save_that_goes_on(undisturbed, tmp_path):
    workdir, _ = undisturbed
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    unfinished = copy / CHECKPOINTS / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    load_trained(copy)
    assert unfinished.is_dir()


def test_the_bar_shows_step_time_left_and_loss_on_a_narrow_terminal(tmp_path):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with RunLog(tmp_path, start_step=0, num_steps=400, console=console) as log:
        log.progress(5, {"loss": 1.25, "gradient_norm": 0.5, "data_wait_seconds": 0.125})
    for words in ("5/400", "left", "loss 1.25", "0.125"):
        assert words in screen.getvalue()


def test_meshes_agree_with_one_device():
    """Three steps on 8x1, 2x4 and 1x8 meshes against one device without a mesh."""
    optimizer = make_optimizer(micro.TRAIN.optimizer, micro.TRAIN.num_steps)
    init = functools.partial(init_state, micro.MODEL, optimizer)
    step = functools.partial(train_step, micro.MODEL, micro.TRAIN, optimizer)
    key = jax.random.key(7)

    def three_steps(state, step_fn, put):
        for i in range(3):
            state, _ = step_fn(state, put(micro.batch(i)), key)
        return jax.device_get(state.params)

    abstract = jax.eval_shape(init, jax.random.key(0))
    start = jax.device_get(jax.jit(init)(jax.random.key(0)))
    expected = three_steps(start, jax.jit(step), lambda batch: batch)
    scale = np.sqrt(sum(np.square(p).sum() for p in jax.tree.leaves(expected)))
    for data, fsdp in ((8, 1), (2, 4), (1, 8)):
        config = MeshConfig(data=data, fsdp=fsdp, min_shard_size=64)
        mesh = make_mesh(config)
        shardings = state_sharding(abstract, mesh, config.min_shard_size)
        assert any(s.spec != P() for s in jax.tree.leaves(shardings)) == (fsdp > 1)
        step_fn = jax.jit(
            step,
            in_shardings=(shardings, sharding.batch_sharding(mesh), None),
            out_shardings=(shardings, None),
        )
        with jax.set_mesh(mesh):
            put = functools.partial(sharding.put_batch, mesh=mesh)
            params = three_steps(jax.device_put(start, shardings), step_fn, put)
        difference = np.sqrt(
            sum(
                np.square(p - e).sum()
                for p, e in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True)
            )
        )
        assert difference < 2e-6 * scale, (data, fsdp, difference / scale)


@pytest.mark.slow
def test_the_loss_falls_when_one_batch_is_repeated():
    optimizer = make_optimizer(dataclasses.replace(micro.TRAIN.optimizer, warmup_steps=10), 150)
    state = jax.jit(functools.partial(init_state, micro.MODEL, optimizer))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, micro.MODEL, micro.TRAIN, optimizer))
    batch = jax.device_put(micro.batch(0))
    losses = []
    for _ in range(150):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])


def test_digital_silence_teaches_nothing_and_breaks_nothing():
    """An all-silent batch moves no parameter; beside other examples it leaves gradients finite."""
    optimizer = make_optimizer(dataclasses.replace(micro.TRAIN.optimizer, weight_decay=0.0), 10)
    start = jax.jit(functools.partial(init_state, micro.MODEL, optimizer))(jax.random.key(0))
    step = jax.jit(functools.partial(train_step, micro.MODEL, micro.TRAIN, optimizer))
    silence = {name: jnp.zeros_like(audio) for name, audio in micro.batch(0).items()}
    state, metrics = step(start, silence, jax.random.key(1))
    assert metrics["loss"] == metrics["gradient_norm"] == 0
    assert_equal(state.params, start.params)
    for i in range(3):
        mixed = {name: jnp.asarray(audio).at[:4].set(0.0) for name, audio in micro.batch(i).items()}
        state, metrics = step(state, mixed, jax.random.key(1))
        assert 0 < metrics["gradient_norm"] < 100


@pytest.mark.parametrize("stratified", [False, True])
def test_noise_levels_are_uniform_and_stratified_when_asked(stratified):
    keys = jax.random.split(jax.random.key(0), 2000)
    levels = jax.vmap(lambda k: draw_noise_levels(k, 8, stratified))(keys)
    np.testing.assert_allclose(levels.mean(0), 0.5, atol=0.03)  # each example's own
    np.testing.assert_allclose(levels.var(0), 1 / 12, atol=0.01)
    strata = jnp.sort(jnp.floor(levels * 8), axis=1)
    assert bool(jnp.all(strata == jnp.arange(8.0)[None])) == stratified


def test_learning_rate_rises_then_falls_along_a_cosine():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_learning_rate_ratio=0.1)
    rate = learning_rate_schedule(config, 110)
    rates = [rate(0), rate(10), rate(60), rate(110)]
    np.testing.assert_allclose(rates, [1 / 11, 1, 0.55, 0.1], rtol=1e-6)  # float32
    assert all(rate(i) < rate(i + 1) for i in range(10))


def test_the_generators_learning_rate_and_the_decay_of_matrices_alone():
    config = OptimizerConfig(
        learning_rate=0.1, warmup_steps=0, weight_decay=0.5, generator_learning_rate_ratio=3.0
    )
    optimizer = make_optimizer(config, 10)
    leaves = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    params = {"generator": leaves, "conditioner": leaves}
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conditioner"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(updates["generator"]["kernel"], -0.15, rtol=1e-6)
    assert all(not jnp.any(updates[name]["bias"]) for name in updates)


def test_fsdp_splits_the_largest_dimension_that_divides():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 8, 16), jnp.float32),
        "odd": jax.ShapeDtypeStruct((16, 27), jnp.float32),
        "small": jax.ShapeDtypeStruct((8,), jnp.float32),
        "indivisible": jax.ShapeDtypeStruct((15, 27), jnp.float32),
    }
    specs = jax.tree.map(lambda s: s.spec, state_sharding(shapes, mesh, min_shard_size=100))
    assert specs == {
        "kernel": P(None, None, "fsdp"),
        "odd": P("fsdp", None),
        "small": P(),
        "indivisible": P(),
    }


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (-1, 3), (-1, -1), (0, 8), (16, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(data, fsdp):
    with pytest.raises(UserError, match=f"data={data} fsdp={fsdp} does not fit 8 devices"):
        make_mesh(MeshConfig(data=data, fsdp=fsdp))


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(make_mesh(MeshConfig(data=-1, fsdp=2)).shape) == {"data": 4, "fsdp": 2}
    assert dict(make_mesh(MeshConfig(data=2, fsdp=-1)).shape) == {"data": 2, "fsdp": 4}


def test_a_batch_that_does_not_divide_among_the_devices_is_refused():
    with pytest.raises(UserError, match="batch_size is 12; a multiple of the 8 devices"):
        sharding.check_batch_size(12, make_mesh(MeshConfig()))


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (TrainConfig, {"num_steps": 0}, "num_steps is 0"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay is 1.0"),
        (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (OptimizerConfig, {"b2": 1.0}, "b2 is 1.0"),
        (LossWeights, {"latent": -1.0}, "latent is -1.0"),
    ],
)
def test_values_out_of_range_are_refused(config, values, message):
    with pytest.raises(UserError, match=message):
        config(**values)
