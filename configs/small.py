"""The shipped weights: the paper's two networks made narrow, for two CPU cores.

    python train.py small --workdir runs/small

What is ours, and off in the paper's configs: patches of 16 samples before both networks; gated
skips in the conditioner, and attention in its bottleneck only; mixture and direct estimate as
further inputs of the generator, and preconditioning about that estimate; stratified noise levels;
twice the weight on the direct estimate; and the augmentations, of which the paper names remix,
polarity and channel flip. Why: `docs/method.md`. Hardware, time and scores of the run
that made the shipped weights: `diffsep_jax/pretrained/small/README.md`.
"""

from configs.experiment import DataConfig, Experiment
from data_pipelines.augment import AugmentConfig
from data_pipelines.pipeline import PipelineConfig
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.conditioner import Conditioner
from diffsep_jax.models.generator import Generator
from diffsep_jax.separation_model import SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import OptimizerConfig


def get() -> Experiment:
    """The experiment."""
    model = SeparationModel(
        segment=32_768,
        estimate_error=0.3,
        conditioner=Conditioner(
            widths=(96, 160, 192, 240, 256),
            factors=(2, 2, 2, 2),
            patch_size=16,
            attention_levels=0,
            injection_levels=2,
            transformer_layers=2,
            transformer_width=160,
            transformer_heads=4,
            skips="gate",
        ),
        generator=Generator(
            widths=(64, 96, 128, 128, 128),
            factors=(2, 2, 2, 2),
            blocks=(1, 1, 1, 1),
            patch_size=16,
            attention_levels=0,
            injection_levels=2,
            fourier_features=64,
            embedding_width=64,
            use_mixture=True,
            use_estimate=True,
        ),
    )
    return Experiment(
        model=model,
        data=DataConfig(
            num_songs=240,
            pipeline=PipelineConfig(
                batch_size=8,
                silent_kept=0.0,
                augment=AugmentConfig(
                    remix_probability=0.8,
                    silent_share=0.15,
                    layer_probability=0.4,
                    speed_percent=(-6.0, 6.0),
                    # On two cores it would take the time of the training itself.
                    pitch_probability=0.0,
                    eq_db=(-3.0, 3.0),
                    bus_probability=0.5,
                    gain_db=(-6.0, 4.0),
                    limiter_probability=0.3,
                    low_pass_probability=0.1,
                    fade_probability=0.05,
                ),
            ),
        ),
        train=TrainConfig(
            num_steps=2_900,
            loss_weights=LossWeights(reconstruction=2.0),
            stratified_sigma=True,
            ema_decay=0.998,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=150),
            log_every=20,
            validate_every=250,
            validation_batches=3,
            validation_sampler_steps=10,
            checkpoint_every=100,
        ),
    )
