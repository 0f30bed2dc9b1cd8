"""An experiment: a model, its data and how it is trained, as one frozen dataclass."""

import dataclasses

from data_pipelines.combined import check_weights
from data_pipelines.pipeline import PipelineConfig
from diffsep_jax.errors import UserError
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the songs come from.

    Attributes:
        source: one or several data sets: "embedded" (songs rendered from a seed), or a folder of
            songs, each a folder with mixture and vocals, or with vocals and any other stems.
        weights: how often each data set is drawn from, one positive number each, as parts of their
            sum; unset: its number of songs.
        validation_source: the same for validation, drawn from by number of songs; unset: the
            validation songs of the data sets trained on, by the same weights.
        num_songs: how many embedded songs to train on.
        validation_songs: how many embedded songs to validate on.
        song_seconds: length of an embedded song.
        seed: of the embedded songs.
        cache_dir: where rendered and resampled songs are kept; unset: the user's cache folder.
        pipeline: batches and augmentation.
    """

    source: tuple[str, ...] = ("embedded",)
    weights: tuple[float, ...] | None = None
    validation_source: tuple[str, ...] | None = None
    num_songs: int = 400
    validation_songs: int = 8
    song_seconds: float = 60.0
    seed: int = 0
    cache_dir: str | None = None
    pipeline: PipelineConfig

    def __post_init__(self) -> None:
        check_weights(self.weights, self.source)
        if self.num_songs < 1 or self.validation_songs < 1 or self.song_seconds <= 0:
            raise UserError(
                f"num_songs={self.num_songs}, validation_songs={self.validation_songs},"
                f" song_seconds={self.song_seconds}: positive numbers are expected"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a training run is made of; `train.py` overrides any field by its name.

    Attributes:
        model: the networks and the audio they work on.
        data: the songs and the pipeline.
        train: the training run.
    """

    model: SeparationModel
    data: DataConfig
    train: TrainConfig
