"""The spectral family for one GPU or TPU: finer bands, wider and deeper; never trained.

    python train.py large --workdir runs/conditioner --data.source SUNG --train.freeze generator

About 20 GFLOP for the conditioner and 10 for each step of the sampler per second of audio, 24M
parameters, in bfloat16. The stages are those of `small`.
"""

import dataclasses

from configs import small
from configs.experiment import Experiment
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator

BANDS = ((16, 4), (20, 8), (12, 16), (8, 32), (4, 88))


def get() -> Experiment:
    """The experiment."""
    base = small.get()
    model = dataclasses.replace(
        base.model,
        segment=262_144,
        compute=Compute(dtype="bfloat16"),
        conditioner=SpectralConditioner(
            bands=BANDS, widths=(192, 256, 384), blocks=(2, 3, 4), scale_exponent=0.6, wiener=0.5
        ),
        generator=SpectralGenerator(
            bands=BANDS, widths=(128, 192, 256), blocks=(2, 3, 3), embedding_width=192
        ),
    )
    pipeline = dataclasses.replace(base.data.pipeline, batch_size=32)
    return dataclasses.replace(
        base, model=model, data=dataclasses.replace(base.data, pipeline=pipeline)
    )
