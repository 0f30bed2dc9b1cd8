"""The spectral family for tests and a first look: `tiny`'s data and training, small networks.

    python train.py tiny_spectral --workdir runs/tiny_spectral

Training in two stages: `docs/method.md`.
"""

import dataclasses

from configs import tiny
from configs.experiment import Experiment
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator

BANDS = ((4, 16), (3, 64), (3, 256))


def get() -> Experiment:
    """The experiment."""
    base = tiny.get()
    return dataclasses.replace(
        base,
        model=SeparationModel(
            segment=8_192,
            conditioner=SpectralConditioner(
                bands=BANDS, widths=(16, 24), blocks=(1, 1), scale_exponent=0.6, wiener=0.5
            ),
            generator=SpectralGenerator(
                bands=BANDS, widths=(16, 24), blocks=(1, 1), embedding_width=32
            ),
        ),
        train=dataclasses.replace(
            base.train, loss_weights=LossWeights(latent=0.0, reconstruction=0.15, log_floor=0.05)
        ),
    )
