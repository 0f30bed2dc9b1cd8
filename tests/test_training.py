"""Training: restarts, meshes, the optimiser, and what stops a run."""

import dataclasses
import io
import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from optax.contrib import MuonDimensionNumbers
from rich.console import Console
from runs import VALIDATED, VALIDATION, assert_equal, records, run, saved_steps

from diffsep_jax.errors import PreemptedError, UserError
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.compute import Compute
from diffsep_jax.training.checkpoint import CHECKPOINTS, Checkpoints, load_trained
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.log import RunLog
from diffsep_jax.training.optimizer import (
    OptimizerConfig,
    _inner_matrices,
    learning_rate_schedule,
    make_optimizer,
)
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.step import draw_noise_levels, train_program


def on_one_device(config, model=micro.MODEL):
    return train_program(model, config, make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture(scope="module", params=micro.FAMILIES)
def model(request):
    return micro.FAMILIES[request.param]


@pytest.fixture(scope="module")
def left_alone(model, tmp_path_factory):
    """(work folder, final state) of a run of this model, validated at its end."""
    workdir = tmp_path_factory.mktemp("left_alone")
    return workdir, run(workdir, VALIDATED, model, validation=[micro.batch(1000, model)])


class CrashError(Exception):
    """Stands in for whatever ends a process."""


def crash_after(num_batches, model=micro.MODEL):
    return lambda step: itertools.chain(
        itertools.islice(micro.batches_from(step, model), num_batches), (_raise() for _ in range(1))
    )


def _raise():
    raise CrashError


def test_a_run_that_crashed_and_went_on_equals_one_left_alone_bitwise(model, left_alone, tmp_path):
    workdir, expected = left_alone
    with pytest.raises(CrashError):  # the newest checkpoint is of step 4
        run(tmp_path, model=model, batches=crash_after(5, model))
    resumed = run(tmp_path, model=model)
    assert_equal(resumed, expected)
    steps = [r["step"] for r in records(tmp_path)]
    assert steps == [r["step"] for r in records(workdir)] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(records(tmp_path), records(workdir), strict=True):
        assert ours["loss"] == theirs["loss"]


def test_the_log_has_losses_rates_and_validation(model, left_alone):
    workdir, _ = left_alone
    weights = (
        {"diffusion": 1, "latent": 1, "reconstruction": 1}
        if model is micro.MODEL
        else {"diffusion": 0.5, "normalised": 0.5, "reconstruction": 1, "scale": 0.1}
    )
    record = records(workdir)[-1]
    terms = sum(weight * record[name] for name, weight in weights.items())
    assert record["loss"] == pytest.approx(terms, rel=1e-5)
    for name in ("learning_rate", "gradient_norm", "examples_per_second", "data_wait_seconds"):
        assert record[name] >= 0, name
    (validation,) = records(workdir, "validation")
    assert {
        "loss_sigma_0.1",
        "loss_sigma_1.0",
        "utterance_sdr_direct",
        "utterance_sdr_ddim",
        "mr_stft_direct",
        "level_1_5khz_ddim",
    } <= set(validation)
    assert "leakage_direct" not in validation  # the segments are shorter than a block
    # 10 log10(P(vocals) / P(mixture - vocals)), with vocals on for about half of the time.
    assert validation["utterance_sdr_mixture"] == pytest.approx(10 * np.log10(0.5 / 0.09), abs=1)
    # The best gain leaves the share of the power that is not vocals.
    assert validation["utterance_sdr_gain"] == pytest.approx(10 * np.log10(1 + 0.5 / 0.09), abs=1)


def test_the_exported_parameters_are_the_averaged_ones(model, left_alone):
    workdir, state = left_alone
    loaded, params = load_trained(workdir)
    assert loaded == model
    assert_equal(params, state.ema)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, PreemptedError)]
)
def test_a_signal_saves_and_a_second_run_goes_on(undisturbed, tmp_path, number, error):
    _, expected = undisturbed

    def signal_in_third_batch(step):
        for i, batch in enumerate(micro.batches_from(step)):
            if i == 2:
                os.kill(os.getpid(), number)
            yield batch

    with pytest.raises(error, match="saved step 3; run the same command again"):
        run(tmp_path, batches=signal_in_third_batch)
    assert saved_steps(tmp_path) == [2, 3]
    assert_equal(run(tmp_path), expected)


def test_a_stop_at_a_validation_equals_a_run_left_alone(undisturbed, tmp_path, capsys):
    """The validation is made up for, in the log and in the checkpoint's score."""
    workdir, expected = undisturbed

    def signal_in_last_batch(step):
        for i, batch in enumerate(micro.batches_from(step), start=1):
            if i == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(PreemptedError, match="saved step 6"):
        run(tmp_path, VALIDATED, batches=signal_in_last_batch, validation=VALIDATION)
    assert records(tmp_path, "validation") == []
    for _ in range(2):  # and only once
        again = run(tmp_path, VALIDATED, batches=crash_after(0), validation=VALIDATION)
        assert_equal(again, expected)
    (ours,), (theirs,) = records(tmp_path, "validation"), records(workdir, "validation")
    assert {**ours, "time": 0} == {**theirs, "time": 0}
    scores = [folder / CHECKPOINTS / "6" / "metrics" / "metrics" for folder in (tmp_path, workdir)]
    assert len({json.loads(path.read_text())["loss"] for path in scores}) == 1
    assert_equal(load_trained(tmp_path, "loss")[1], expected.ema)


def test_a_stop_before_the_first_step_takes_and_saves_none(toy, tmp_path, monkeypatch):
    def restore(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "restore", restore)
    with pytest.raises(PreemptedError, match="nothing was to be saved after step 0"):
        run(tmp_path, batches=crash_after(0))
    assert saved_steps(tmp_path) == []


def run_log(workdir, config=micro.TRAIN, **options):
    return RunLog(workdir, config, batch_size=micro.BATCH_SIZE, **options)


@pytest.mark.parametrize("rest", ['{"step": 2, "ki', "\0\0", '{"step": 6, "kind": "train"}\n'])
def test_a_resumed_run_drops_later_records_and_what_a_crash_cut_off(tmp_path, rest):
    whole = '{"step": 1, "kind": "train"}'
    (tmp_path / "log.jsonl").write_text(f"{whole}\n{rest}")
    run_log(tmp_path, start_step=5).finish()
    assert (tmp_path / "log.jsonl").read_text() == whole + "\n"


def test_a_log_that_cannot_be_read_ends_in_one_line(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(UserError, match=r"log.jsonl: cannot be written: Is a directory"):
        run_log(tmp_path, start_step=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(toy, tmp_path):
    def poisoned(step):
        for i, batch in enumerate(micro.batches_from(step), start=step + 1):
            if i == 4:  # the step that a checkpoint is due at
                batch["vocals"] = np.full_like(batch["vocals"], np.inf)
            yield batch

    with pytest.raises(UserError, match=r"step 4: the loss is inf.*The state was not saved"):
        run(tmp_path, batches=poisoned)
    assert saved_steps(tmp_path) == [2]
    _, params = load_trained(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_bar_shows_step_time_left_and_loss_on_a_narrow_terminal(tmp_path):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    log = run_log(
        tmp_path,
        dataclasses.replace(micro.TRAIN, num_steps=400, log_every=5),
        start_step=4,
        console=console,
    )
    log.before(5)
    log.after(5, {"loss": jnp.float32(1.25), "gradient_norm": jnp.float32(0.5)})
    log.finish()
    for words in ("5/400", "left", "loss 1.25", "data_wait_seconds"):
        assert words in screen.getvalue()


@pytest.mark.slow
def test_the_loss_falls_when_one_batch_is_repeated():
    optimizer = dataclasses.replace(micro.TRAIN.optimizer, warmup_steps=10)
    config = dataclasses.replace(micro.TRAIN, optimizer=optimizer, num_steps=150)
    program = on_one_device(config)
    state = program.init(jax.random.key(0))
    batch = jax.device_put(micro.batch(0))
    losses = []
    for _ in range(150):
        state, metrics = program.step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])


def test_silence_teaches_nothing_and_breaks_nothing(model):
    """An all-silent batch moves no parameter; beside other examples it leaves gradients finite."""
    optimizer = dataclasses.replace(micro.TRAIN.optimizer, weight_decay=0.0)
    program = on_one_device(dataclasses.replace(micro.TRAIN, optimizer=optimizer), model)
    start = jax.device_get(program.init(jax.random.key(0)))
    for rms in (0.0, 3e-4):
        shape = micro.batch(0, model)["mixture"].shape
        hiss = np.random.default_rng(0).normal(0, rms, shape).astype(np.float32)
        silence = dict.fromkeys(("mixture", "vocals"), hiss)
        state, metrics = program.step(start, silence, jax.random.key(1))
        assert metrics["loss"] == metrics["gradient_norm"] == 0
        assert_equal(state.params, start.params)
        for i in range(3):
            batch = micro.batch(i, model)
            mixed = {name: np.concatenate([hiss[:4], batch[name][4:]]) for name in batch}
            state, metrics = program.step(state, mixed, jax.random.key(1))
            assert 0 < metrics["gradient_norm"] < 100


@pytest.mark.parametrize("stratified", [False, True])
def test_noise_levels_are_uniform_and_stratified_when_asked(stratified):
    keys = jax.random.split(jax.random.key(0), 2000)
    config = TrainConfig(stratified_sigma=stratified)
    levels = jax.vmap(lambda k: draw_noise_levels(k, 8, config))(keys)
    np.testing.assert_allclose(levels.mean(0), 0.5, atol=0.03)  # each example's own
    np.testing.assert_allclose(levels.var(0), 1 / 12, atol=0.01)
    strata = jnp.sort(jnp.floor(levels * 8), axis=1)
    assert bool(jnp.all(strata == jnp.arange(8.0)[None])) == stratified


@pytest.mark.parametrize("stratified", [False, True])
def test_noise_levels_for_few_steps(stratified):
    config = TrainConfig(sigma_distribution="few_steps", stratified_sigma=stratified)
    levels = draw_noise_levels(jax.random.key(0), 100_000, config)
    assert float(levels.min()) >= 1e-3
    assert float(jnp.mean(levels == 1)) == pytest.approx(0.2, abs=0.01)
    # Half of the rest is uniform, half a uniform's cube: P(sigma < s) = (s + s^(1/3)) / 2.
    rest = levels[levels < 1]
    for level in (0.01, 0.1, 0.5, 0.9):
        expected = (level + level ** (1 / 3)) / 2
        assert float(jnp.mean(rest < level)) == pytest.approx(expected, abs=0.01)


def test_a_constant_learning_rate_cools_down_at_the_end():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule="constant")
    rate = learning_rate_schedule(config, 1000)
    np.testing.assert_allclose(rate(0), 1 / 11, rtol=1e-6)
    np.testing.assert_allclose([rate(10), rate(500), rate(900)], 1.0, rtol=1e-6)
    np.testing.assert_allclose([rate(925), rate(1000)], [0.5, 0.0], atol=1e-6)
    longer = learning_rate_schedule(config, 2000)  # the same run goes on
    np.testing.assert_allclose([longer(1000), longer(1800)], 1.0, rtol=1e-6)


def test_the_average_grows_with_the_run(toy):
    """Its half-life is a share of the steps so far, until its decay is reached."""
    config = dataclasses.replace(micro.TRAIN, ema_half_life=0.5, ema_decay=0.6)
    program = on_one_device(config)
    state = program.init(jax.random.key(0))
    expected = np.asarray(state.ema["generator"]["gain"])
    for step, decay in enumerate((0.25, 0.5, 0.6, 0.6)):
        state, _ = program.step(state, micro.batch(step), jax.random.key(1))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["generator"]["gain"])
        ours = np.asarray(state.ema["generator"]["gain"])
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_learning_rate_rises_then_falls_along_a_cosine():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10)
    rate = learning_rate_schedule(config, 110)
    rates = [rate(0), rate(10), rate(60), rate(110)]
    np.testing.assert_allclose(rates, [1 / 11, 1, 0.5, 0], rtol=1e-6, atol=1e-7)  # float32
    assert all(rate(i) < rate(i + 1) for i in range(10))


def first_updates(method, shapes, freeze="none"):
    """The optimiser's first updates for random gradients."""
    rng = np.random.default_rng(0)
    params, gradients = (
        jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
        for _ in range(2)
    )
    config = OptimizerConfig(
        method=method, learning_rate=0.1, warmup_steps=0, weight_decay=0.0, clip_norm=1e9
    )
    optimizer = make_optimizer(config, 10, freeze)
    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(optimizer.update)(gradients, optimizer.init(params), params)[0]


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_frozen_network_has_no_updates(method):
    shapes = {"blocks": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}}
    updates = first_updates(method, {"generator": shapes, "conditioner": shapes}, "generator")
    for network, each in updates.items():
        assert all(np.any(leaf) == (network != "generator") for leaf in jax.tree.leaves(each))


def test_muon_makes_the_steps_of_inner_matrices_orthogonal_and_leaves_the_rest_to_adam():
    shapes = jax.eval_shape(micro.SPECTRAL.init, jax.random.key(0))
    del shapes["generator"]
    muon, adam = (first_updates(method, shapes) for method in ("muon", "adamw"))
    block = muon["conditioner"]["unet"]["encoder_block_0_0"]
    for kernel in (block["over_frames"]["kernel"], block["mixed"]["kernel"], block["mix"]):
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.min() > 0.5 * singular.max()
        assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.02, rel=0.3)
    for module in ("embed_0", "mask_0", "scale"):
        ratio = muon["conditioner"][module]["kernel"] / adam["conditioner"][module]["kernel"]
        np.testing.assert_allclose(ratio, 1 + 0.09 / 0.19, rtol=1e-4)  # Nesterov, first step


def test_muon_leaves_what_faces_the_audio_to_adam_in_the_waveform_family_too():
    params = jax.eval_shape(micro.MODEL.init, jax.random.key(0))
    views = _inner_matrices(params, freeze="none")
    for network, edges in {
        "conditioner": ("conv_in", "estimate_head", "latent_head"),
        "generator": ("conv_in", "conv_out"),
    }.items():
        assert all(views[network][edge]["kernel"] is None for edge in edges)
        inner = views[network]["encoder_block_0" if network == "conditioner" else "down_0"]
        assert any(view is not None for view in jax.tree.leaves(inner, is_leaf=is_view))


def is_view(node):
    return node is None or isinstance(node, MuonDimensionNumbers)


def test_weights_decay_in_matrices_alone():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    leaves = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    params = {"generator": leaves, "conditioner": leaves}
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for each in updates.values():
        np.testing.assert_allclose(each["kernel"], -0.05, rtol=1e-6)
        assert not jnp.any(each["bias"])


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (TrainConfig, {"num_steps": 0}, "num_steps is 0"),
        (TrainConfig, {"micro_batches": 0}, "micro_batches is 0"),
        (TrainConfig, {"stall_minutes": -1.0}, "stall_minutes is -1"),
        (TrainConfig, {"profile_steps": (5, 2)}, "profile_steps is 5 2"),
        (TrainConfig, {"profile_steps": (0, 2)}, "profile_steps is 0 2"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay is 1.0"),
        (TrainConfig, {"ema_half_life": 0.0}, "ema_half_life is 0.0"),
        (TrainConfig, {"unrolled_steps": (1, 0)}, "unrolled_steps is 0; expected 1"),
        (TrainConfig, {"unrolled_schedule": -1.0}, "unrolled_schedule is -1.0; expected 0.1"),
        (
            TrainConfig,
            {"freeze": "generator", "best_by": "utterance_sdr_ddim"},
            "does not change with a frozen generator",
        ),
        (
            TrainConfig,
            {"freeze": "conditioner", "best_by": "utterance_sdr_direct"},
            "does not change with a frozen conditioner",
        ),
        (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (OptimizerConfig, {"b2": 1.0}, "b2 is 1.0"),
        (LossWeights, {"latent": -1.0}, "latent is -1.0"),
        (Compute, {"attention": "cudnn"}, "attention is cudnn, .*dtype is float32; expected"),
    ],
)
def test_values_out_of_range_are_refused(config, values, message):
    with pytest.raises(UserError, match=message):
        config(**values)
