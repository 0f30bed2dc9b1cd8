"""A short run of the micro model, for commands: `train.py tests/micro_config.py`."""

import dataclasses

import micro

import configs
from configs.experiment import DataConfig, Experiment


def get() -> Experiment:
    """The experiment."""
    tiny = configs.get("tiny")
    return Experiment(
        model=micro.MODEL,
        data=DataConfig(
            num_songs=1,
            validation_songs=1,
            song_seconds=5.0,
            pipeline=dataclasses.replace(tiny.data.pipeline, batch_size=8),
        ),
        train=dataclasses.replace(
            tiny.train,
            num_steps=15,
            checkpoint_every=3,
            log_every=1,
            validate_every=15,
            validation_batches=1,
            validation_sampler_steps=2,
        ),
    )
