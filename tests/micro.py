"""The smallest models that have every part, and training batches for them that need no audio."""

import dataclasses
import math

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import configs
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import OptimizerConfig

_TINY = configs.get("tiny").model

MODEL = dataclasses.replace(
    _TINY,
    segment=512,
    conditioner=dataclasses.replace(
        _TINY.conditioner,
        widths=(16, 16),
        factors=(8,),
        attention_levels=1,
        attention_width=16,
        injection_levels=1,
        transformer_width=16,
    ),
    generator=dataclasses.replace(
        _TINY.generator,
        widths=(16, 16),
        factors=(8,),
        blocks=(1,),
        attention_levels=1,
        attention_width=16,
        injection_levels=1,
        fourier_features=8,
        embedding_width=16,
    ),
)

_BANDS = {"bands": ((8, 16), (7, 128))}

_SPECTRAL = configs.get("tiny_spectral").model

SPECTRAL = dataclasses.replace(
    _SPECTRAL,
    segment=4096,
    conditioner=dataclasses.replace(_SPECTRAL.conditioner, **_BANDS),
    generator=dataclasses.replace(_SPECTRAL.generator, **_BANDS),
)

FAMILIES = {"waveform": MODEL, "spectral": SPECTRAL}

TRAIN = TrainConfig(
    num_steps=6,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    ema_decay=0.9,
    log_every=1,
    validate_every=100,
    checkpoint_every=2,
)

BATCH_SIZE = 8


def random_params(model):
    """Parameters away from the start, of which many are zero; nothing is compiled for them."""
    rng = np.random.default_rng(0)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0)), sep="/")

    def draw(name, shape):
        noise = rng.standard_normal(shape, np.float32)
        if name.endswith("kernel"):
            return noise / math.sqrt(math.prod(shape[:-1]))
        return 0.1 * noise + name.endswith(("scale", "slope"))

    return unflatten_dict(
        {name: np.float32(draw(name, leaf.shape)) for name, leaf in shapes.items()}, sep="/"
    )


def batch(step, model=MODEL):
    """Noise bursts for vocals over noise: a pure function of the step."""
    rng = np.random.default_rng(step)
    vocals, rest = rng.standard_normal((2, BATCH_SIZE, model.segment, 2)).astype(np.float32)
    vocals *= np.sin(np.arange(model.segment, dtype=np.float32) / 20)[None, :, None] > 0
    return {"mixture": vocals + 0.3 * rest, "vocals": vocals}


def batches_from(step, model=MODEL):
    """The iterator that a training run asks for."""
    while True:
        yield batch(step, model)
        step += 1


def train_config(**fields):
    """`TRAIN` with a learning rate at which rounding does not show, and with these fields."""
    optimizer = dataclasses.replace(TRAIN.optimizer, learning_rate=1e-4)
    values = {"optimizer": optimizer, "validate_every": 6, "validation_sampler_steps": 2}
    return dataclasses.replace(TRAIN, **{**values, **fields})
