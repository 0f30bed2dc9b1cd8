"""An experiment: a model, its data and its training, as one frozen dataclass."""

import dataclasses

from data_pipelines.combined import check_weights
from data_pipelines.pipeline import PipelineConfig
from diffsep_jax.errors import UserError
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The songs to train and validate on.

    Attributes:
        source: one or several data sets: "embedded" (songs rendered from a seed), or a folder of
            songs, each a folder with mixture and vocals, or with vocals and any other stems, or
            of records, which may be a URL.
        weights: a positive number for each data set, proportional to how often it is drawn from;
            unset: its number of songs.
        validation_source: data sets for validation, weighted by their numbers of songs; unset: the
            validation songs of the data sets trained on, by the same weights.
        num_songs: number of embedded songs to train on.
        validation_songs: number of embedded songs to validate on.
        song_seconds: length of an embedded song.
        seed: seed of the embedded songs.
        cache_dir: folder for rendered, resampled and copied songs; unset: the user's cache folder.
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
        for name in ("num_songs", "validation_songs", "song_seconds"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A training run; `train.py` overrides any field by its name.

    Attributes:
        model: the networks and the audio they work on.
        data: the songs and the pipeline.
        train: the training run.
    """

    model: SeparationModel
    data: DataConfig
    train: TrainConfig
