"""The training loop: one function, read from top to bottom."""

import contextlib
import faulthandler
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.errors import UserError
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import is_primary, wait_for_all
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.config import BestMetric, TrainConfig
from diffsep_jax.training.interrupt import StopRequest, raise_stopped
from diffsep_jax.training.log import Meter, RunLog
from diffsep_jax.training.optimizer import learning_rate_schedule
from diffsep_jax.training.profiling import StepProfiler
from diffsep_jax.training.program import (
    abstract_arguments,
    describe_memory,
    example_seconds_at_peak,
    train_program,
)
from diffsep_jax.training.run_config import keep_run_config, read_model_config
from diffsep_jax.training.sharding import BatchLayout, with_shardings
from diffsep_jax.training.step import Metrics, TrainState, run_keys
from diffsep_jax.training.tensorboard import TensorBoard
from diffsep_jax.training.validation import make_validate

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
        stop: an active StopRequest that handles Ctrl-C and SIGTERM.
        settings: whatever else is to be recorded with the run; a restart logs what changed.
        init_from: name of the model that `initial_params` come from, recorded with the run.
        initial_params: what a run without a checkpoint starts from; random by default.

    Ctrl-C saves a checkpoint and raises KeyboardInterrupt, SIGTERM saves and raises
    PreemptedError. Raises UserError if the loss is not finite, a checkpoint cannot be written, or
    the run in `workdir` is of another model, seed, batch size or `init_from`. Call it from the
    main thread, which receives Python's signals.

    A stop does not wait for a validation that is due: the run makes up for it when it resumes.
    """
    mesh, primary = layout.mesh, is_primary()
    changes = keep_run_config(
        workdir,
        model,
        fixed={"train.seed": config.seed, "batch_size": layout.batch_size}
        | (
            {}
            if config.optimizer.method == "adamw"
            # Muon's state is of the matrices that are trained alone.
            else {"train.optimizer.method": "muon", "train.freeze": config.freeze}
        )
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
        stack.callback(faulthandler.cancel_dump_traceback_later)
        restart_watchdog(config.stall_minutes)

        checkpoints = Checkpoints(workdir / CHECKPOINTS, config.keep_checkpoints, config.best_by)
        stack.callback(checkpoints.close)
        stack.enter_context(jax.set_mesh(mesh))
        warnings: list[str] = []
        state = checkpoints.restore(program.state, warnings.append)
        if state is None:
            state = program.init(init_key)
            if initial_params is not None:
                state = state._replace(
                    params=replace_leaves(state.params, initial_params),
                    ema=replace_leaves(state.ema, initial_params),
                )
        start_step = int(state.step)

        board = None
        if config.tensorboard and primary:
            board = stack.enter_context(TensorBoard(workdir / "tensorboard", start_step=start_step))
        log = stack.enter_context(
            RunLog(
                workdir,
                start_step=start_step,
                num_steps=config.num_steps,
                writes=primary,
                board=board,
            )
        )
        for line in (*warnings, *(f"changed since the run's last start: {c}" for c in changes)):
            log.say(line)
        if start_step:
            log.say(f"resumed from the checkpoint of step {start_step}")
        validation_on_device = [layout.put(batch) for batch in validation_batches]

        def is_validated_at(step: int) -> bool:
            due = step % config.validate_every == 0 or step == config.num_steps
            return step > 0 and due and bool(validation_on_device)

        def validate(step: int, state: TrainState) -> dict[str, float]:
            report, segments = run_validation(state.ema, validation_on_device)
            log.write(step, "validation", report)
            if board is not None:
                board.segments(step, segments, model.sample_rate)
            return report

        if is_validated_at(start_step) and not checkpoints.is_scored(start_step):
            checkpoints.score(start_step, validate(start_step, state))  # a stop came before it
        if start_step >= config.num_steps:
            return state

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
        example_seconds = example_seconds_at_peak(model, config, mesh)
        meter = Meter(start_step, layout.batch_size, example_seconds)
        pending: tuple[int, Metrics] | None = None  # of the step that is still running

        # Fetch, start the step, then read the metrics of the one before: the device always has the
        # next step queued. Validation and saving come after the metrics of their own step were
        # found finite, so no bad state is ever saved; saving comes last, with the validation's
        # result.
        for step in range(start_step + 1, config.num_steps + 1):
            restart_watchdog(config.stall_minutes)
            with meter.timing("data_wait"):
                batch = layout.put(next(batches))
            profiler.before_step(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, batch, step_key)
            profiler.after_step(step, metrics)
            if pending is not None:
                read_metrics(*pending, checkpoints)
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
                values = read_metrics(*pending, checkpoints)
                pending = None
            if logs:
                values["learning_rate"] = float(schedule(step - 1))
                values |= meter.rates(step)
                log.write(step, "train", values)
            if validates and not stopped_by:
                with meter.timing("validation"):
                    report = validate(step, state)
            if saves:
                with meter.timing("save_wait"):
                    checkpoints.save(state, report)
            if stopped_by:
                raise_stopped(stopped_by, f"saved step {step}")
    return state


def restart_watchdog(stall_minutes: float) -> None:
    """Shows on stderr where every thread is if it is not called again in time; 0 turns it off."""
    if stall_minutes:
        faulthandler.dump_traceback_later(60 * stall_minutes, repeat=True, file=2)  # stderr


def replace_leaves(params: Params, given: Params) -> Params:
    """`params` with the leaves that `given` has: all but the L_lat head if it is an export."""
    flat = flatten_dict(given)
    return unflatten_dict(
        {
            name: jax.device_put(flat.get(name, leaf), leaf.sharding)
            for name, leaf in flatten_dict(params).items()
        }
    )


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run in `workdir` resumes from a checkpoint."""
    folder = workdir / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def load_trained(
    workdir: pathlib.Path, best_by: BestMetric | None = None
) -> tuple[SeparationModel, Params]:
    """A run's model and the averaged parameters of its newest checkpoint, on one device.

    `best_by`: of the best checkpoint by that number instead. Raises UserError if there is none. A
    run that is training there is not disturbed.
    """
    model = read_model_config(workdir)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None, best_by=best_by or "loss")
    try:
        wanted = with_shardings(abstract, jax.tree.map(lambda _: device, abstract))
        return model, checkpoints.restore_ema(wanted, best=best_by is not None)
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
