"""For tests and a first look: trains from scratch in a minute on two CPU cores.

    python train.py tiny --workdir runs/tiny

Too small to separate anything well, but it has every part of the larger configs.
"""

from configs.experiment import DataConfig, Experiment
from data_pipelines.augment import AugmentConfig
from data_pipelines.pipeline import PipelineConfig
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.waveform.conditioner import Conditioner
from diffsep_jax.models.waveform.generator import Generator
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import OptimizerConfig


def get() -> Experiment:
    """The experiment."""
    model = SeparationModel(
        segment=8_192,
        estimate_error=0.3,
        conditioner=Conditioner(
            widths=(32, 48, 64, 64),
            factors=(4, 4, 1),
            patch_size=8,
            attention_levels=2,
            attention_width=32,
            attention_heads=2,
            injection_levels=2,
            transformer_layers=1,
            transformer_width=32,
            transformer_heads=2,
            skips="gate",
        ),
        generator=Generator(
            widths=(32, 48, 64, 64),
            factors=(4, 4, 1),
            blocks=(1, 1, 1),
            patch_size=8,
            attention_levels=1,
            attention_width=32,
            attention_heads=2,
            injection_levels=2,
            fourier_features=32,
            embedding_width=64,
            use_mixture=True,
            use_estimate=True,
        ),
    )
    return Experiment(
        model=model,
        data=DataConfig(
            num_songs=4,
            validation_songs=2,
            song_seconds=20.0,
            pipeline=PipelineConfig(batch_size=8, augment=AugmentConfig(pitch_probability=0.0)),
        ),
        train=TrainConfig(
            num_steps=400,
            stratified_sigma=True,
            ema_decay=0.99,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20),
            log_every=10,
            validate_every=100,
            validation_batches=2,
            validation_sampler_steps=5,
            checkpoint_every=100,
        ),
    )
