"""The training loop: one function, read from top to bottom."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.distributed import is_primary, wait_for_all
from diffsep_jax.errors import UserError
from diffsep_jax.flops import train_step_flops
from diffsep_jax.model_config import flatten, unflatten
from diffsep_jax.separation_model import Params, SeparationModel
from diffsep_jax.training.checkpoint import BestBy, Checkpoints
from diffsep_jax.training.config import BestMetric, TrainConfig
from diffsep_jax.training.interrupt import StopRequest, raise_stopped
from diffsep_jax.training.logging import RunLog
from diffsep_jax.training.meter import Meter
from diffsep_jax.training.optimizer import learning_rate_schedule
from diffsep_jax.training.profiling import StepProfiler
from diffsep_jax.training.program import (
    abstract_arguments,
    describe_memory,
    train_program,
)
from diffsep_jax.training.run_config import keep_run_config, read_model_config
from diffsep_jax.training.sharding import BatchLayout, with_shardings
from diffsep_jax.training.step import Metrics, TrainState, run_keys
from diffsep_jax.training.tensorboard import TensorBoard
from diffsep_jax.training.validation import make_validate
from diffsep_jax.training.watchdog import Watchdog, to_stderr

HostBatch = dict[str, np.ndarray]

CHECKPOINTS = "checkpoints"


def train(
    model: SeparationModel,
    config: TrainConfig,
    *,
    layout: BatchLayout,
    train_batches: Callable[[int], Iterator[HostBatch]],
    validation_batches: Sequence[HostBatch],
    workdir: pathlib.Path,
    stop: StopRequest,
    settings: Mapping[str, Any] | None = None,
    init_from: str | None = None,
    initial_params: Params | None = None,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start, to `config.num_steps`.

    Every process of a run calls it, with a folder that all share. The state lies over the mesh.

    Args:
        model: the networks; `model.compute` says how they run.
        config: everything else about the run.
        layout: the mesh, and the rows of the global batch that this process provides.
        train_batches: step -> an iterator over this process's rows of the batches from that step
            on, as a pure function of the step: each `{"mixture", "vocals"}`, float32
            `[row, time, 2]`, from songs at unit RMS.
        validation_batches: the same rows of the batches that are validated on.
        workdir: for checkpoints, config and log.
        stop: entered; it hears of Ctrl-C and SIGTERM.
        settings: whatever else is to be recorded with the run; a restart logs what changed.
        init_from: name of the model that `initial_params` are of, recorded with the run.
        initial_params: what a run without a checkpoint starts from; by default random ones.

    Ctrl-C saves a checkpoint and raises KeyboardInterrupt, SIGTERM saves and raises
    PreemptedError. Raises UserError if the loss is not finite, a checkpoint cannot be written, or
    the run in `workdir` is of another model, seed, batch size or `init_from`. Call it from the
    main thread, which Python's signals go to.

    A stop does not wait for a validation that is due: the run makes up for it when it goes on.
    """
    mesh, primary = layout.mesh, is_primary()
    changes = keep_run_config(
        workdir,
        model,
        fixed={"train.seed": config.seed, "batch_size": layout.batch_size}
        | ({} if config.optimizer.method == "adamw" else {"train.optimizer.method": "muon"})
        | ({} if init_from is None else {"init_from": init_from}),
        settings=settings or {},
    )
    init_key, step_key = jax.jit(
        lambda: run_keys(config.seed)[:2], out_shardings=NamedSharding(mesh, P())
    )()
    program = train_program(model, config, mesh)
    schedule = learning_rate_schedule(config.optimizer, config.num_steps)
    run_validation = make_validate(model, config, mesh)

    with contextlib.ExitStack() as stack:
        stack.enter_context(stop.noting())
        watchdog = stack.enter_context(
            Watchdog(to_stderr, config.stall_minutes, num_processes=jax.process_count())
        )
        warnings: list[str] = []
        with watchdog.phase("restoring"):
            best_by = best_metric(config.best_by)
            checkpoints = Checkpoints(workdir / CHECKPOINTS, config.keep_checkpoints, best_by)
            stack.callback(close_checkpoints, checkpoints, watchdog)
            stack.enter_context(jax.set_mesh(mesh))
            state = checkpoints.restore(program.state, warnings.append)
        if state is None:
            with watchdog.phase("compiling"):
                state = program.init(init_key)
            if initial_params is not None:
                given = flatten(initial_params)  # exports lack the L_lat head

                def start(fresh: Params) -> Params:
                    leaves = flatten(fresh).items()
                    return unflatten(
                        {k: jax.device_put(given.get(k, v), v.sharding) for k, v in leaves}
                    )

                state = state._replace(params=start(state.params), ema=start(state.ema))
        start_step = int(state.step)
        watchdog.step_done(start_step)
        log = stack.enter_context(
            RunLog(workdir, start_step=start_step, num_steps=config.num_steps, writes=primary)
        )
        for line in (*warnings, *(f"changed since the run's last start: {c}" for c in changes)):
            log.say(line)
        if start_step:
            log.say(f"resumed from the checkpoint of step {start_step}")
        validation_on_device = [layout.put(batch) for batch in validation_batches]
        board = None
        if config.tensorboard and primary:
            board = stack.enter_context(TensorBoard(workdir / "tensorboard", start_step=start_step))

        def is_validated_at(step: int) -> bool:
            due = step % config.validate_every == 0 or step == config.num_steps
            return step > 0 and due and bool(validation_on_device)

        def validate(step: int, state: TrainState) -> dict[str, float]:
            with watchdog.phase("validating"):
                report, segments = run_validation(state.ema, validation_on_device)
                log.write(step, "validation", report)
                if board is not None:
                    board.scalars(step, "validation", report)
                    board.segments(step, segments, model.sample_rate)
            return report

        if is_validated_at(start_step) and not checkpoints.is_scored(start_step):
            checkpoints.score(start_step, validate(start_step, state))  # a stop came before it
        if start_step >= config.num_steps:
            return state

        with watchdog.phase("compiling"):
            arguments = abstract_arguments(program, model, mesh, layout.batch_size)
            step_fn = program.step.lower(*arguments).compile()
            wait_for_all("compiled")
        log.say(describe_memory(step_fn))
        if stopped_by := stop.vote():
            raise_stopped(stopped_by, f"nothing was to be saved after step {start_step}")
        profiler = stack.enter_context(
            StepProfiler(workdir / "profile", config.profile_steps if primary else None, log.say)
        )
        batches = train_batches(start_step)
        stack.callback(getattr(batches, "close", lambda: None))
        meter = Meter(
            start_step, layout.batch_size, train_step_flops(model, 1, config.freeze), mesh
        )
        pending: tuple[int, Metrics] | None = None  # of the step that is still running

        def read_pending() -> dict[str, float]:
            assert pending is not None
            with watchdog.phase("waiting for the devices"):
                values = read_metrics(*pending, checkpoints)
            watchdog.step_done(pending[0])
            return values

        # Fetch, start the step, then read the metrics of the one before: the device always has the
        # next step queued. Validation and saving come after the metrics of their own step were
        # found finite, so no bad state is ever saved; saving comes last, with the validation's
        # result.
        for step in range(start_step + 1, config.num_steps + 1):
            with watchdog.phase("waiting for data"), meter.waiting_for_data():
                batch = layout.put(next(batches))
            profiler.before_step(step)
            state, metrics = step_fn(state, batch, step_key)
            profiler.after_step(step, metrics)
            if pending is not None:
                read_pending()
            pending = (step, metrics)
            log.progress(step)
            checkpoints.check()

            last = step == config.num_steps
            stopped_by = stop.vote()
            validates = is_validated_at(step)
            saves = validates or step % config.checkpoint_every == 0 or last or bool(stopped_by)
            logs = step % config.log_every == 0 or last
            report: dict[str, float] | None = None
            if logs or validates or saves:
                values = read_pending()
                pending = None
            if logs:
                values["learning_rate"] = float(schedule(step - 1))
                values |= meter.rates(step)
                log.write(step, "train", values)
                log.progress(step, values)
                if board is not None:
                    board.scalars(step, "train", values)
            if validates and not stopped_by:
                with meter.paused():
                    report = validate(step, state)
            if saves:
                with watchdog.phase("saving"), meter.saving():
                    checkpoints.save(state, report)
            if stopped_by:
                raise_stopped(stopped_by, f"saved step {step}")
    return state


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run in `workdir` goes on from a checkpoint."""
    folder = workdir / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def best_metric(name: BestMetric) -> BestBy:
    """A loss is best when it is low, an SDR when it is high."""
    return BestBy(name, higher_is_better=name != "loss")


def close_checkpoints(checkpoints: Checkpoints, watchdog: Watchdog) -> None:
    """Waits for the last save."""
    with watchdog.phase("saving"):
        checkpoints.close()


def load_trained(
    workdir: pathlib.Path, best_by: BestMetric | None = None
) -> tuple[SeparationModel, Params]:
    """A run's model and the averaged parameters of its newest checkpoint, on one device.

    `best_by`: of the best checkpoint by that number instead. Raises UserError if there is none. A
    run that is going on there is not disturbed.
    """
    model = read_model_config(workdir)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    best = None if best_by is None else best_metric(best_by)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None, best=best)
    try:
        shardings = jax.tree.map(lambda _: device, abstract)
        wanted = with_shardings(abstract, shardings)
        return model, checkpoints.restore_ema(wanted, best=best is not None)
    finally:
        checkpoints.close()


def read_metrics(step: int, metrics: Metrics, checkpoints: Checkpoints) -> dict[str, float]:
    """Waits for a step's metrics. Raises UserError, naming the step, if the loss is not finite."""
    values = {name: float(value) for name, value in metrics.items()}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
        kept = checkpoints.latest_step
        raise UserError(
            f"step {step}: the loss is {values['loss']} and the gradient norm"
            f" {values['gradient_norm']}; "
            + ("no checkpoint was saved yet" if kept is None else f"step {kept} is saved")
            + "; lower the learning rate or look at the data"
        )
    return values
