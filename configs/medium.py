"""`small` at twice the work, for CPU days or a small GPU; no weights of it are shipped.

    python train.py medium --workdir runs/conditioner --data.source SUNG --train.freeze generator

About 5 GFLOP for the conditioner and 2.5 for each step of the sampler per second of audio, 9.2M
parameters. The stages are those of `small`.
"""

import dataclasses

from configs import small
from configs.experiment import Experiment
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator


def get() -> Experiment:
    """The experiment."""
    base = small.get()
    model = dataclasses.replace(
        base.model,
        conditioner=SpectralConditioner(
            widths=(128, 192, 256), blocks=(2, 2, 2), scale_exponent=0.6, wiener=0.5
        ),
        generator=SpectralGenerator(widths=(96, 128, 160), blocks=(1, 1, 2)),
    )
    return dataclasses.replace(base, model=model)
