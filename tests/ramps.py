"""Sources of which every sample says where it comes from."""

import dataclasses

import numpy as np
from jaxtyping import Float

from data_pipelines import pipeline
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.source import ACTIVITY_BLOCK, Segment, check_range
from diffsep_jax.errors import UserError

BLOCKS = 40


@dataclasses.dataclass(frozen=True)
class Ramps:
    """Songs that say where each sample comes from; the voice sings in a few blocks only."""

    songs: int = 5
    active: tuple[int, ...] = (7, 8, 30)
    loudness: float = 1.0
    sample_rate: int = 44100

    def __len__(self) -> int:
        return self.songs

    def name(self, song: int) -> str:
        return f"ramp-{song}"

    def num_samples(self, song: int) -> int:
        return BLOCKS * ACTIVITY_BLOCK

    def segment(self, song: int, start: int, length: int) -> Segment:
        check_range(self.name(song), start, length, self.num_samples(song))
        position = np.arange(start, start + length)
        sings = np.isin(position // ACTIVITY_BLOCK, self.active)
        vocals = np.where(sings, 0.25, 0.0)
        band = 1.0 + song + position / self.num_samples(song) / 2
        return Segment(
            vocals=np.stack([vocals, 2 * vocals], axis=1).astype(np.float32),
            accompaniment=np.stack([band, -band], axis=1).astype(np.float32),
        )

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        sings = np.isin(np.arange(BLOCKS), self.active)
        return np.where(sings, 0.25 * np.sqrt(2.5), 0.0).astype(np.float32)

    def level(self, song: int) -> float:
        return self.loudness


class Broken(Ramps):
    """Every song is damaged, which shows on reading."""

    def segment(self, song: int, start: int, length: int) -> Segment:
        raise UserError("a song: damaged")


def example(source, config: PipelineConfig, segment: int, index: int) -> dict[str, np.ndarray]:
    """Mixture and vocals of one example."""
    alone = dataclasses.replace(config, batch_size=1)
    batch = pipeline.batches(source, alone, segment=segment)[index]
    return {name: rows[0] for name, rows in batch.items()}
