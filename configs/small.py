"""The shipped weights: the spectral family for two CPU cores, in two stages.

    python -m data_pipelines.build sung --out SUNG --hours 20 --workers 2
    python -m data_pipelines.build music --out MUSIC
    python train.py small --workdir runs/conditioner --train.freeze generator \\
        --train.num-steps 16000 --data.source SUNG MUSIC --data.weights 4 1 \\
        --data.validation-source SUNG
    python train.py small --workdir runs/generator --train.freeze conditioner \\
        --train.num-steps 4600 --data.source SUNG MUSIC --data.weights 4 1 \\
        --data.validation-source SUNG --init-from runs/conditioner/model

The networks, the losses, the noise levels, the stages and most augmentations are ours; the paper
names remix, polarity, channel flip and pitch: `docs/method.md`. The shipped weights were made in
more parts, the last of them on twice the segment and through the sampler; commands, hardware, time
and scores: `diffsep_jax/pretrained/small/README.md`.
"""

from configs.experiment import DataConfig, Experiment
from data_pipelines.augment import AugmentConfig
from data_pipelines.pipeline import PipelineConfig
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import OptimizerConfig


def get() -> Experiment:
    """The experiment."""
    return Experiment(
        model=SeparationModel(
            segment=131_072,
            conditioner=SpectralConditioner(
                widths=(96, 128, 192), blocks=(1, 1, 2), scale_exponent=0.6, wiener=0.5
            ),
            generator=SpectralGenerator(widths=(48, 64, 96)),
        ),
        data=DataConfig(
            num_songs=240,
            pipeline=PipelineConfig(
                batch_size=4,
                silent_kept=0.0,
                augment=AugmentConfig(
                    remix_probability=0.8,
                    silent_share=0.2,
                    layer_probability=0.7,
                    layer_db=(-6.0, 4.0),
                    speed_percent=(-5.0, 16.0),
                    remix_speed_percent=(-20.0, 25.0),
                    # On two cores it would take the time of the training itself.
                    pitch_probability=0.0,
                    eq_db=(-5.0, 5.0),
                    bus_probability=0.5,
                    gain_db=(-8.0, 4.0),
                    limiter_probability=0.3,
                    low_pass_probability=0.1,
                    fade_probability=0.05,
                ),
            ),
        ),
        train=TrainConfig(
            num_steps=400_000,
            loss_weights=LossWeights(latent=0.0, reconstruction=0.15, log_floor=0.2),
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
