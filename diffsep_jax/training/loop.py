"""The training loop: one function, read from top to bottom."""

import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from diffsep_jax.errors import UserError
from diffsep_jax.separation_model import Params, SeparationModel
from diffsep_jax.training import sharding
from diffsep_jax.training.checkpoint import Checkpoints
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.interrupt import StopRequest
from diffsep_jax.training.logging import RunLog
from diffsep_jax.training.optimizer import learning_rate_schedule, make_optimizer
from diffsep_jax.training.run_config import keep_model_config, read_model_config
from diffsep_jax.training.step import Metrics, TrainState, init_state, train_step
from diffsep_jax.training.validation import make_validate

T = TypeVar("T")
HostBatch = dict[str, np.ndarray]

CHECKPOINTS = "checkpoints"


def train(
    model: SeparationModel,
    config: TrainConfig,
    *,
    train_batches: Callable[[int], Iterator[HostBatch]],
    validation_batches: Sequence[HostBatch],
    batch_size: int,
    workdir: pathlib.Path,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start, to `config.num_steps`.

    `train_batches(step)` iterates over this host's batches from that step on, as a pure function of
    the step: each `{"mixture", "vocals"}`, float32 `[batch, time, 2]`, from songs at unit RMS.
    Ctrl-C saves a checkpoint and raises KeyboardInterrupt. Raises UserError if the loss is not
    finite, or the run in `workdir` is of another network. Call it from the main thread, which
    Python's signals go to.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"{jax.process_count()} processes: training runs in one process so far, on all of its"
            " devices; start it on one host"
        )
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(batch_size, mesh)
    root_key = jax.random.key(config.seed)
    init_key, step_key, validation_key = jax.random.split(root_key, 3)
    optimizer = make_optimizer(config.optimizer, config.num_steps)
    schedule = learning_rate_schedule(config.optimizer, config.num_steps)

    init = functools.partial(init_state, model, optimizer)
    abstract_state = jax.eval_shape(init, init_key)
    state_shardings = sharding.state_sharding(abstract_state, mesh, config.mesh.min_shard_size)
    step_fn = jax.jit(
        functools.partial(train_step, model, config, optimizer),
        in_shardings=(state_shardings, sharding.batch_sharding(mesh), None),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
    validate = make_validate(model, config, validation_key)

    keep_model_config(workdir, model)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, config.keep_checkpoints)
    try:
        with jax.set_mesh(mesh):
            if checkpoints.latest_step is None:
                state = jax.jit(init, out_shardings=state_shardings)(init_key)
            else:
                state = checkpoints.restore(with_shardings(abstract_state, state_shardings))
            validation_on_device = [sharding.put_batch(b, mesh) for b in validation_batches]
            start_step = int(state.step)
            with (
                RunLog(workdir, start_step=start_step, num_steps=config.num_steps) as log,
                StopRequest() as stop,
            ):
                if start_step:
                    log.say(f"resumed from the checkpoint of step {start_step}")
                batches = train_batches(start_step)
                pending: tuple[int, Metrics] | None = None  # of the step that is still running
                meter = Meter(start_step)
                step = start_step
                try:
                    # Fetch, start the step, then read the metrics of the one before: the device
                    # always has the next step queued. Validation and saving come after the metrics
                    # of their own step were found finite, so no bad state is ever saved.
                    while step < config.num_steps:
                        with meter.waiting_for_data():
                            batch = sharding.put_batch(next(batches), mesh)
                        state, metrics = step_fn(state, batch, step_key)
                        step += 1
                        if pending is not None:
                            read_metrics(*pending, checkpoints)
                        pending = (step, metrics)
                        log.progress(step)

                        last = step == config.num_steps
                        due = {
                            "log": step % config.log_every == 0 or last,
                            "validate": step % config.validate_every == 0 or last,
                            "save": step % config.checkpoint_every == 0 or last,
                        }
                        if any(due.values()):
                            values = read_metrics(*pending, checkpoints)
                            pending = None
                        if due["log"]:
                            values["learning_rate"] = float(schedule(step - 1))
                            values |= meter.rates(step, batch_size)
                            log.write(step, "train", values)
                            log.progress(step, values)
                        if due["save"]:
                            checkpoints.save(state)
                        if due["validate"] and validation_on_device:
                            with meter.paused():
                                report = validate(state.ema, validation_on_device)
                            log.write(step, "validation", report)
                        if stop.requested:
                            if pending is not None:
                                read_metrics(*pending, checkpoints)
                            checkpoints.save(state)
                            log.say(f"interrupted: saved step {step}; run again to go on")
                            raise KeyboardInterrupt
                finally:
                    close = getattr(batches, "close", None)
                    if close is not None:
                        close()
    finally:
        checkpoints.close()
    return state


def load_trained(workdir: pathlib.Path) -> tuple[SeparationModel, Params]:
    """A run's model and the averaged parameters of its newest checkpoint, on one device.

    Raises UserError if there is none. A run that is going on there is not disturbed.
    """
    model = read_model_config(workdir)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None)
    try:
        shardings = jax.tree.map(lambda _: device, abstract)
        return model, checkpoints.restore_ema(with_shardings(abstract, shardings))
    finally:
        checkpoints.close()


def with_shardings(abstract: T, shardings: T) -> T:
    """Shapes and types with the shardings to restore into."""
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        abstract,
        shardings,
    )


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


class Meter:
    """Examples per second, and seconds waited for data, since the last reading."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._since = time.perf_counter()
        self._waited = 0.0

    def rates(self, step: int, batch_size: int) -> dict[str, float]:
        """The figures since the last call; `batch_size` is the global one."""
        now = time.perf_counter()
        examples = (step - self._step) * batch_size
        rates = {
            "examples_per_second": examples / max(now - self._since, 1e-9),
            "data_wait_seconds": self._waited,
        }
        self._step, self._since, self._waited = step, now, 0.0
        return rates

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """The time inside counts as waited for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside does not count."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
