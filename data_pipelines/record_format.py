"""What a record of a built data set holds.

A record holds a fixed number of samples, about half of a training segment, which is then read from
two or three of them: a record is read and its checksum verified as a whole. The last record of a
song ends with it, and only a song that is shorter than a record is filled up with zeros.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffsep_jax.errors import UserError

Dtype = Literal["int16", "float32"]

VERSION = "1.0.0"
"""Incremented when the content of records changes."""

INT16_SCALE = 32768
"""Stored integers are float samples times this, divided by the song's own scale."""

MAX_RECORD_SAMPLES = 2**25
"""A quarter of an hour at 44.1 kHz: a record is read whole."""

SILENT_DB = -120.0
"""The lowest level that a record can have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFormat:
    """What a record holds.

    Attributes:
        sample_rate: Hz.
        dtype: type of the stored samples.
        record_samples: length of a record.
        overlap_samples: shared with the song's next record; earlier data sets have some.
    """

    sample_rate: int = 44_100
    dtype: Dtype = "int16"
    record_samples: int = 2**16
    overlap_samples: int = 0

    def __post_init__(self) -> None:
        if not 1 < self.record_samples <= MAX_RECORD_SAMPLES:
            raise UserError(
                f"record_samples is {self.record_samples}; expected 2 to {MAX_RECORD_SAMPLES}"
            )
        if not 0 <= self.overlap_samples < self.record_samples:
            raise UserError(
                f"overlap_samples is {self.overlap_samples}; expected 0 to record_samples - 1"
                f" ({self.record_samples - 1})"
            )
        if not 8_000 <= self.sample_rate <= 192_000:
            raise UserError(f"sample_rate is {self.sample_rate}; expected 8000 to 192000 Hz")

    @property
    def hop(self) -> int:
        """Samples from one record's start to the next's."""
        return self.record_samples - self.overlap_samples

    def num_records(self, num_samples: int) -> int:
        """Records of a song."""
        return 1 + max(0, math.ceil((num_samples - self.record_samples) / self.hop))

    def start(self, record: int, num_samples: int) -> int:
        """Where a song's record starts in it."""
        return min(record * self.hop, max(0, num_samples - self.record_samples))

    def features(self) -> Any:
        """The records' `tfds.features`; the levels are RMS in decibels to full scale."""
        import tensorflow_datasets as tfds  # takes most of a second

        audio = tfds.features.Tensor(
            shape=(self.record_samples, 2), dtype=np.dtype(self.dtype), encoding="bytes"
        )
        return tfds.features.FeaturesDict(
            {
                "song": tfds.features.Text(),
                "position": np.int64,  # of the record's first sample in the song
                "num_samples": np.int64,  # of the song
                "scale": np.float32,
                "vocals_db": np.float32,
                "mixture_db": np.float32,
                "mixture_is_sum": np.bool_,
                "vocals": audio,
                "accompaniment": audio,
            }
        )


def find_data_set(path: Path) -> Path | None:
    """Finds the data set at `path` or below it. Returns its folder, or None.

    Raises UserError if there are several.
    """
    if (path / "dataset_info.json").is_file():
        return path
    infos = (info for depth in ("*", "*/*") for info in path.glob(f"{depth}/dataset_info.json"))
    found = sorted(info.parent for info in infos)
    if len(found) > 1:
        names = ", ".join(str(each.relative_to(path)) for each in found)
        raise UserError(f"{path}: holds several data sets, {names}; expected one: name its folder")
    return found[0] if found else None


def table_name(split: str) -> str:
    """File name of a split's table of songs."""
    return f"songs-{split}.npz"
