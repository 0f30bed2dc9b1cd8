"""The spectral family for two CPU cores, in two stages; no weights of it are shipped yet.

    python -m data_pipelines.build sung --out SUNG --hours 8 --workers 2
    python train.py small_spectral --workdir runs/conditioner --data.source SUNG \\
        --train.freeze generator
    python train.py small_spectral --workdir runs/generator --data.source SUNG \\
        --train.freeze conditioner --init-from runs/conditioner/model

The networks, the losses, the noise levels and the stages are ours: `docs/method.md`.
"""

import dataclasses

from configs import small
from configs.experiment import Experiment
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.separation_model import SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import OptimizerConfig


def get() -> Experiment:
    """The experiment."""
    base = small.get()
    return Experiment(
        model=SeparationModel(
            segment=131_072,
            conditioner=SpectralConditioner(widths=(96, 128, 192), blocks=(1, 1, 2)),
            generator=SpectralGenerator(widths=(48, 64, 96)),
        ),
        data=dataclasses.replace(
            base.data, pipeline=dataclasses.replace(base.data.pipeline, batch_size=4)
        ),
        train=TrainConfig(
            num_steps=400_000,
            loss_weights=LossWeights(latent=0.0, reconstruction=0.15, log_floor=0.05),
            sigma_distribution="few_steps",
            stratified_sigma=True,
            optimizer=OptimizerConfig(
                method="muon",
                learning_rate=2e-3,
                warmup_steps=100,
                schedule="constant",
                b2=0.99,
            ),
            ema_half_life=0.12,
            log_every=50,
            validate_every=2_000,
            validation_batches=8,
            validation_sampler_steps=8,
            checkpoint_every=500,
        ),
    )
