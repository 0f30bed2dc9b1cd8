"""One process of a training run of the micro model, for tests: started by `test_processes.py`."""

import argparse
import functools
import pathlib
import time

import jax
import micro
import pytest
from toy import use_toy_networks

from diffsep_jax.errors import one_line_errors
from diffsep_jax.runtime import join_hosts
from diffsep_jax.training.loop import train
from diffsep_jax.training.sharding import BatchLayout, MeshConfig, make_mesh


def main():
    """Trains like `train.py` does, on batches that need no audio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--multihost", action="store_true")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--seconds-per-step", type=float, default=0.0)
    parser.add_argument("--config", default="{}", help="fields of TrainConfig, as Python")
    options = parser.parse_args()
    # So that the others wait for a killed process for seconds, not minutes.
    jax.distributed.initialize = functools.partial(
        jax.distributed.initialize, heartbeat_timeout_seconds=10
    )
    if options.toy:
        use_toy_networks(pytest.MonkeyPatch())
    join_hosts(options.multihost)
    mesh_config = MeshConfig(fsdp=options.fsdp, min_shard_size=64)
    fields = {"checkpoint_every": 2, "mesh": mesh_config, **eval(options.config)}
    config = micro.train_config(**fields)
    layout = BatchLayout(make_mesh(config.mesh), micro.BATCH_SIZE)
    options.workdir.mkdir(parents=True, exist_ok=True)

    def batches_from(step):
        for batch in micro.batches_from(step):
            time.sleep(options.seconds_per_step)
            yield {name: rows[layout.rows] for name, rows in batch.items()}

    validation = {name: rows[layout.rows] for name, rows in micro.batch(1000).items()}
    train(
        micro.MODEL,
        config,
        layout=layout,
        train_batches=batches_from,
        validation_batches=[validation],
        workdir=options.workdir,
    )
    print(f"done in process {jax.process_index()}")


if __name__ == "__main__":
    with one_line_errors():
        main()
