"""How a model is trained."""

import dataclasses
from typing import Literal

from diffsep_jax.errors import UserError
from diffsep_jax.losses import LossWeights
from diffsep_jax.samplers import check_settings
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
        seed: seed of the parameters, the noise and the noise levels.
        optimizer: AdamW and its schedule.
        loss_weights: weights of the losses other than L_diff.
        freeze: the network that is not trained (ours: two stages). "generator": the conditioner is
            trained alone, and the generator never runs. "conditioner": the generator is trained
            alone.
        sigma_distribution: "uniform" over [0, 1], as in the paper; or "few_steps" (ours): a fifth
            are 1, where every sampler starts, and half of the rest are uniform, half the cube of a
            uniform number, because quiet details are decided at low noise.
        stratified_sigma: spread the noise levels of a batch evenly over [0, 1] without changing
            the distribution of each (ours; the paper draws them independently).
        unrolled_steps: numbers of steps T of the sampler ab2, through which the generator is also
            trained, one of them in each step, in turn (ours). Empty: only L_diff trains it.
        unrolled_schedule: `schedule` of that sampler.
        ema_decay: largest decay of the parameters' moving average, which is what is exported.
        ema_half_life: largest half-life of that average, as a share of the steps so far (ours: it
            forgets the start soon, and grows with the run).
        micro_batches: parts in which each device computes its rows of a batch, one after the
            other: less memory, the same result.
        mesh: layout of the devices.
        log_every: steps between two lines of the log.
        validate_every: steps between two validations; each one also saves a checkpoint.
        validation_batches: batches of the validation split that are scored.
        validation_sampler_steps: T of the sampler in validation.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: number of the latest checkpoints to keep.
        best_by: the number of a validation by which the best checkpoint is kept too.
        tensorboard: also write scalars and audio of validations to WORKDIR/tensorboard.
        profile_steps: first and last step of a profile in WORKDIR/profile.
        stall_minutes: if no step starts for this long, each process prints the stacks of all its
            threads on stderr, and again after each such period; 0 turns this off.
    """

    num_steps: int = 1_000_000
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    loss_weights: LossWeights = LossWeights()
    freeze: Freeze = "none"
    sigma_distribution: SigmaDistribution = "uniform"
    stratified_sigma: bool = False
    unrolled_steps: tuple[int, ...] = ()
    unrolled_schedule: float = 3.0
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
            raise UserError(f"ema_decay is {self.ema_decay}; expected at least 0 and less than 1")
        if not self.ema_half_life > 0:
            raise UserError(f"ema_half_life is {self.ema_half_life}; expected a positive share")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "seed" and field.type in (int, "int") and value < 1:
                raise UserError(f"{field.name} is {value}; expected 1 or more")
        try:
            for steps in (1, *self.unrolled_steps):  # 1 checks the schedule where there are none
                check_settings(steps=steps, schedule=self.unrolled_schedule)
        except UserError as error:
            raise UserError(f"unrolled_{error}") from None
        if self.unrolled_steps and self.freeze == "generator":
            raise UserError("unrolled_steps has no effect with a frozen generator; leave it out")
        if not 0 <= self.stall_minutes <= 1e6:
            raise UserError(f"stall_minutes is {self.stall_minutes}; expected 0 to 1e6")
        still = {"generator": "utterance_sdr_ddim", "conditioner": "utterance_sdr_direct"}
        if self.best_by == still.get(self.freeze):
            raise UserError(
                f"best_by is {self.best_by}, which does not change with a frozen {self.freeze};"
                " expected another number, such as loss"
            )
        if (
            self.profile_steps is not None
            and not 1 <= self.profile_steps[0] <= self.profile_steps[1]
        ):
            first, last = self.profile_steps
            raise UserError(
                f"profile_steps is {first} {last}; expected the first and the last step,"
                " 1 <= first <= last"
            )
