"""Training runs of a micro model in this process, and what they leave behind."""

import dataclasses
import functools
import json

import jax
import micro
import numpy as np

from diffsep_jax.training.checkpoint import CHECKPOINTS, Checkpoints
from diffsep_jax.training.loop import train
from diffsep_jax.training.sharding import BatchLayout, MeshConfig, make_mesh
from diffsep_jax.training.step import train_program

VALIDATED = dataclasses.replace(micro.TRAIN, validate_every=6, validation_sampler_steps=2)
VALIDATION = [micro.batch(1000)]


def run(
    workdir,
    config=micro.TRAIN,
    model=micro.MODEL,
    batches=None,
    validation=(),
    settings=None,
    tracker=None,
    on_saved=lambda: None,
):
    workdir.mkdir(exist_ok=True)
    mesh = make_mesh(config.mesh, jax.devices()[:2])
    return train(
        model,
        config,
        layout=BatchLayout(mesh, micro.BATCH_SIZE, config.micro_batches),
        train_batches=batches or functools.partial(micro.batches_from, model=model),
        validation_batches=validation,
        workdir=workdir,
        settings=settings,
        tracker=tracker,
        on_saved=on_saved,
    )


def records(workdir, kind="train"):
    lines = (workdir / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / CHECKPOINTS).iterdir() if p.name.isdigit())


def restored(workdir, step, model=micro.MODEL, config=micro.TRAIN):
    """The whole training state after the last step, `step`, from its checkpoint."""
    program = train_program(model, config, make_mesh(MeshConfig()))
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None)
    try:
        assert checkpoints.latest_step == step
        return jax.device_get(checkpoints.restore(program.state, print))
    finally:
        checkpoints.finish()


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
