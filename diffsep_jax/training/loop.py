"""The training loop: one function, read from top to bottom."""

import contextlib
import faulthandler
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffsep_jax.files import check_writable
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import fixed_flags, is_primary, wait_for_all
from diffsep_jax.training.checkpoint import CHECKPOINTS, Checkpoints
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.interrupt import StopRequest, raise_stopped
from diffsep_jax.training.log import RunLog, read_metrics
from diffsep_jax.training.run_config import check_run_config, run_config, write_run_config
from diffsep_jax.training.sharding import BatchLayout
from diffsep_jax.training.step import (
    TrainState,
    describe_memory,
    example_seconds_at_peak,
    run_keys,
    step_arguments,
    train_program,
)
from diffsep_jax.training.tracker import Tracker
from diffsep_jax.training.validation import make_validate

HostBatch = dict[str, np.ndarray]


@fixed_flags()
def train(
    model: SeparationModel,
    config: TrainConfig,
    *,
    layout: BatchLayout,
    train_batches: Callable[[int], Iterator[HostBatch]],
    validation_batches: Sequence[HostBatch],
    workdir: pathlib.Path,
    settings: Mapping[str, Any] | None = None,
    tracker: Tracker | None = None,
    init_from: str | None = None,
    initial_params: Params | None = None,
    on_saved: Callable[[], None] = lambda: None,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start, to `config.num_steps`.

    Every process of a run calls it, with a folder that all share, from the main thread, which
    receives Python's signals. Ctrl-C saves a checkpoint and raises KeyboardInterrupt; SIGTERM saves
    and raises PreemptedError. Neither waits for a validation that is due: the run makes up for it
    when it resumes.

    Args:
        model: the networks; `model.compute` says how they run.
        config: everything else about the run.
        layout: the mesh, and the rows of the global batch that this process provides.
        train_batches: step -> an iterator over this process's rows of the batches from that step
            on, as a pure function of the step: each `{"mixture", "vocals"}`, float32
            `[row, time, 2]`, from songs at unit RMS.
        validation_batches: the same rows of the batches to validate on.
        workdir: folder for checkpoints, config and log.
        settings: recorded with the run; a restart logs what changed.
        tracker: gets, in process 0, each record of the log.
        init_from: name of the model that `initial_params` come from, recorded with the run.
        initial_params: parameters that a run without a checkpoint starts from; random by default.
        on_saved: called when a checkpoint is complete; the loop waits for it.

    Returns:
        The final state, laid out over the mesh.

    Raises:
        UserError: the loss is not finite, a checkpoint cannot be written, the tracker does not
            start, or the run in `workdir` is of another model, seed, batch size or `init_from`.
    """
    mesh = layout.mesh
    ours = run_config(
        model,
        config,
        batch_size=layout.batch_size,
        init_from=init_from,
        settings=settings or {},
    )
    notes = check_run_config(workdir, ours)
    program = train_program(model, config, mesh)
    init_key, step_key = jax.jit(
        lambda: run_keys(config.seed)[:2], out_shardings=layout.everywhere
    )()
    run_validation = make_validate(model, config, mesh)

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(mesh))
        stack.enter_context(jax.set_mesh(mesh))
        restart_watchdog(config.stall_minutes)  # restoring and compiling are watched as well
        stack.callback(faulthandler.cancel_dump_traceback_later)
        checkpoints = Checkpoints(
            workdir / CHECKPOINTS, config.keep_checkpoints, config.best_by, on_saved
        )
        stack.callback(checkpoints.finish)

        if is_primary():
            chips = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
            hosts = f" in {jax.process_count()} processes" * (jax.process_count() > 1)
            print(
                f"compiling for {chips}{hosts}; the first time takes minutes on a few cores",
                flush=True,
            )
        # The state: restored, or new.
        state = checkpoints.restore(program.state, notes.append)
        if state is None:
            notes.append(f"no checkpoint in {workdir / CHECKPOINTS}: starting at step 0")
            state = program.init(init_key)
            if initial_params is not None:
                state = state._replace(
                    params=replace_leaves(state.params, initial_params),
                    ema=replace_leaves(state.ema, initial_params),
                )
        else:
            notes.append(f"resumed from the checkpoint of step {int(state.step)}")
        start_step = int(state.step)
        write_run_config(workdir, ours)
        log = RunLog(workdir, config, start_step=start_step, batch_size=layout.batch_size)
        stack.callback(log.finish)
        for note in notes:
            log.say(note)
        if tracker is not None and is_primary():
            log.track(tracker, ours | {"workdir": str(workdir)})

        # Validation. The run may have stopped before validating the step that it resumes from.
        validation_on_device = [layout.put(batch) for batch in validation_batches]

        def is_validated_at(step: int) -> bool:
            due = step % config.validate_every == 0 or step == config.num_steps
            return step > 0 and due and bool(validation_on_device)

        def validate(step: int, state: TrainState) -> dict[str, float]:
            validation = run_validation(state.ema, validation_on_device)
            log.write_validation(step, validation, model.sample_rate)
            return validation.report

        if is_validated_at(start_step) and not checkpoints.is_scored(start_step):
            checkpoints.add_metrics(start_step, validate(start_step, state))
        if start_step >= config.num_steps:
            return state

        # The compiled step.
        arguments = step_arguments(program, model, mesh, layout.batch_size)
        step_fn = program.step.lower(*arguments).compile()
        wait_for_all("compiled")
        log.say(describe_memory(step_fn))
        log.example_seconds_at_peak = example_seconds_at_peak(model, config, mesh, log.say)
        if stopped_by := stop.vote():
            raise_stopped(stopped_by, f"nothing was to be saved after step {start_step}")
        profile_steps = (0, 0)  # none
        if config.profile_steps is not None and is_primary():
            check_writable(workdir / "profile")
            profile_steps = config.profile_steps
        profiling = stack.enter_context(contextlib.ExitStack())
        batches = train_batches(start_step)
        stack.callback(getattr(batches, "close", lambda: None))

        for step in range(start_step + 1, config.num_steps + 1):
            restart_watchdog(config.stall_minutes)
            log.before(step)
            if step == profile_steps[0]:
                profiling.enter_context(profile(workdir / "profile", log.say))
            with log.timing("data_wait"):
                batch = layout.put(next(batches))
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, batch, step_key)
            checkpoints.check()
            log.after(step, metrics)
            if step == profile_steps[1]:
                jax.block_until_ready(metrics)
                profiling.close()

            stopped_by = stop.vote()
            validates = is_validated_at(step)
            last = step == config.num_steps
            if not (validates or stopped_by or last or step % config.checkpoint_every == 0):
                continue
            # Only a finite state is saved, and last, with the validation's result.
            read_metrics(step, metrics)
            report: dict[str, float] | None = None
            if validates and not stopped_by:
                with log.timing("validation"):
                    report = validate(step, state)
            with log.timing("save_wait"):
                checkpoints.save(state, report)
            if stopped_by:
                raise_stopped(stopped_by, f"saved step {step}")
    return state


def restart_watchdog(minutes: float) -> None:
    """Prints the stacks of all threads on stderr unless called again in time; 0 turns it off."""
    if minutes:
        faulthandler.dump_traceback_later(60 * minutes, repeat=True, file=2)  # stderr


@contextlib.contextmanager
def profile(folder: pathlib.Path, report: Callable[[str], None]) -> Iterator[None]:
    """Writes a trace by JAX's profiler; `report` says where it is, or why it cannot be written."""
    jax.profiler.start_trace(folder)
    try:
        yield
    finally:
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            report(f"{folder}: the profile cannot be written ({error})")
        else:
            report(f"wrote the profile; to view it: pip install xprof; xprof --logdir {folder}")


def replace_leaves(params: Params, given: Params) -> Params:
    """`params` with the leaves of `given`, which lacks the L_lat head if it is an export."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    return jax.device_put(unflatten_dict(flatten_dict(params) | flatten_dict(given)), shardings)
