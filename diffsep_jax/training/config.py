"""How a model is trained: every choice of the training loop, with its reason in `docs/`."""

import dataclasses
from typing import Literal

from diffsep_jax.errors import UserError
from diffsep_jax.losses import LossWeights
from diffsep_jax.training.optimizer import OptimizerConfig
from diffsep_jax.training.sharding import MeshConfig

Freeze = Literal["none", "generator", "conditioner"]
SigmaDistribution = Literal["uniform", "few_steps"]
BestMetric = Literal["loss", "utterance_sdr_direct", "utterance_sdr_ddim"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training run.

    Attributes:
        num_steps: length of the run, and of the learning-rate schedule.
        seed: of the parameters, the noise and the noise levels.
        optimizer: AdamW and its schedule.
        loss_weights: of L_lat and L_rec beside L_diff.
        freeze: network that is not trained: of "generator" the conditioner alone is, and the
            generator never runs; of "conditioner" the generator alone (ours: two stages).
        sigma_distribution: "uniform" over [0, 1], as in the paper; or "few_steps" (ours): a fifth
            are 1, which every sampler starts at, the rest half uniform, half a uniform's cube, as
            quiet details are decided at low noise.
        stratified_sigma: spread a batch's noise levels evenly over [0, 1]; each has the
            same distribution as before (ours; the paper draws them independently).
        ema_decay: of the parameters' moving average, which is what is exported; at most this
            much, so that it does not grow longer than needed.
        ema_half_life: of the average, at most, as a share of the steps so far (ours: it leaves the
            start soon, and grows with the run).
        micro_batches: parts that each device takes its rows of a batch in, one after the other:
            less memory, the same result.
        mesh: devices.
        log_every: steps between two lines of the log.
        validate_every: steps between two validations.
        validation_batches: batches of the validation split that are scored.
        validation_sampler_steps: T of the sampler in validation.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: how many of the latest are kept.
        best_by: number of the validations by which one more checkpoint is kept, the best; a
            checkpoint is saved at each validation.
        tensorboard: also write scalars, audio and spectrograms to WORKDIR/tensorboard.
        profile_steps: first and last step of a profile in WORKDIR/profile.
        stall_minutes: if no step finishes for this long, each process shows on stderr where all of
            its threads are, and again after each such period; 0 turns this off.
    """

    num_steps: int = 1_000_000
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    loss_weights: LossWeights = LossWeights()
    freeze: Freeze = "none"
    sigma_distribution: SigmaDistribution = "uniform"
    stratified_sigma: bool = False
    ema_decay: float = 0.9999
    ema_half_life: float = 0.02
    micro_batches: int = 1
    mesh: MeshConfig = MeshConfig()
    log_every: int = 100
    validate_every: int = 5_000
    validation_batches: int = 2
    validation_sampler_steps: int = 10
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 3
    best_by: BestMetric = "loss"
    tensorboard: bool = False
    profile_steps: tuple[int, int] | None = None
    stall_minutes: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}; 0 <= ema_decay < 1 is expected")
        if not self.ema_half_life > 0:
            raise UserError(f"ema_half_life is {self.ema_half_life}; a positive share is expected")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "seed" and field.type in (int, "int") and value < 1:
                raise UserError(f"{field.name} is {value}; 1 or more is expected")
        if not 0 <= self.stall_minutes <= 1e6:
            raise UserError(f"stall_minutes is {self.stall_minutes}; 0 to 1e6 is expected")
        still = {"generator": "utterance_sdr_ddim", "conditioner": "utterance_sdr_direct"}
        if self.best_by == still.get(self.freeze):
            raise UserError(
                f"best_by is {self.best_by}, which does not change with a frozen {self.freeze};"
                " loss is the plain choice"
            )
        if (
            self.profile_steps is not None
            and not 1 <= self.profile_steps[0] <= self.profile_steps[1]
        ):
            first, last = self.profile_steps
            raise UserError(
                f"profile_steps is {first} {last}; the first and the last step are expected,"
                " 1 <= first <= last"
            )
