"""A song as audio files, and the one reader of such songs: its files to two stems.

`folders` reads songs in place with it, for training and evaluation; `builders` makes records of
them.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from data_pipelines.dsp import rms
from diffsep_jax.audio.read import AudioFile, finite_blocks, resample_blocks
from diffsep_jax.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a", ".mp4")

FULL_SCALE = 32767 / 32768
"""Samples from here on are counted as clipped."""

_SIXTEEN_BITS_OR_LESS = ("PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW")
_LOSSY = (".mp3", ".mp4", ".m4a", ".ogg", ".opus")

Audio = Float32[np.ndarray, "time 2"]


@dataclasses.dataclass(frozen=True, order=True)
class StemFile:
    """An audio file, or one of the audio streams of a container."""

    path: Path
    stream: int | None = None

    def __str__(self) -> str:
        return f"{self.path} (stream {self.stream})" if self.stream else str(self.path)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A song: the files of its vocals, of its other stems, of its mixture.

    Attributes:
        name: unique in the data set.
        vocals: summed; none: an instrumental, whose vocals are silent.
        others: summed to the accompaniment where there is no mixture.
        mixture: the released mixture; the accompaniment is mixture - vocals.
        split: one of `source.SPLITS`.
    """

    name: str
    vocals: tuple[StemFile, ...]
    others: tuple[StemFile, ...]
    mixture: StemFile | None
    split: str = "train"

    @property
    def files(self) -> tuple[StemFile, ...]:
        """All of them."""
        return (*self.vocals, *self.others, *((self.mixture,) if self.mixture else ()))


class Stems(NamedTuple):
    """The audio of a recording.

    Attributes:
        vocals: zeros for an instrumental.
        accompaniment: mixture - vocals, or the sum of the other stems where there is no mixture.
        mixture_error: RMS of (mixture - all stems) over RMS of the mixture; None where there are
            no mixture and stems to compare.
        clipped: samples of the files at full scale.
        note: what was repaired, in words.
    """

    vocals: Audio
    accompaniment: Audio
    mixture_error: float | None
    clipped: int
    note: str


def visible(folder: Path) -> list[Path]:
    """A folder's entries, sorted, without hidden ones. Raises UserError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; expected a readable folder") from None


def read_stems(recording: Recording, sample_rate: int) -> Stems:
    """Decodes, resamples (soxr VHQ), makes mono stereo, and pads shorter stems with zeros.

    Memory: about six times one stem of the recording as float32.

    Raises:
        UserError: naming the file, for one that cannot be read whole.
    """
    reader = _Reader(sample_rate)
    others = reader.sum(recording.others) if recording.others else None
    vocals = reader.sum(recording.vocals) if recording.vocals else None
    mixture = reader.sum([recording.mixture]) if recording.mixture else None
    length = max(len(audio) for audio in (vocals, others, mixture) if audio is not None)
    vocals = np.zeros((length, 2), np.float32) if vocals is None else pad(vocals, length)
    others = None if others is None else pad(others, length)
    error = None
    if mixture is None:
        assert others is not None
        accompaniment = others
    else:
        mixture = pad(mixture, length)
        accompaniment = mixture - vocals
        if others is not None:
            error = rms(accompaniment - others) / max(rms(mixture), 1e-9)
    note = ""
    shortest, longest = min(reader.lengths), max(reader.lengths)
    if longest - shortest > 1:
        missing = (longest - shortest) / sample_rate
        note = f"stems of unequal length: the shortest was filled up with {missing:.2f} s"
    return Stems(vocals, accompaniment, error, reader.clipped, note)


class _Reader:
    """Sums files; counts their lengths and clipped samples."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self.lengths: list[int] = []
        self.clipped = 0

    def sum(self, files: Sequence[StemFile]) -> Audio:
        total = self._read(files[0])
        for file in files[1:]:
            more = self._read(file)
            length = max(len(total), len(more))
            total = pad(total, length)
            total += pad(more, length)
        return total

    def _read(self, file: StemFile) -> Audio:
        source = AudioFile(file.path, file.stream)
        blocks = self._stereo_blocks(source)
        audio = np.concatenate(list(resample_blocks(blocks, source.sample_rate, self._sample_rate)))
        self.lengths.append(len(audio))
        return audio

    def _stereo_blocks(self, source: AudioFile) -> Iterator[Audio]:
        for block in finite_blocks(source):
            self.clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
            yield as_stereo(block)


def is_sixteen_bit(file: StemFile) -> bool:
    """Whether 16 bits hold what the file holds: PCM of up to 16 bits, or a lossy format."""
    if file.path.suffix.lower() in _LOSSY:
        return True
    try:
        return soundfile.info(os.fsencode(file.path)).subtype in _SIXTEEN_BITS_OR_LESS
    except soundfile.SoundFileError:
        return True  # reported when it is read


def as_stereo(audio: Float32[np.ndarray, "time channel"]) -> Audio:
    """Mono on both channels; stereo as it is."""
    return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio


def pad(audio: Audio, length: int) -> Float32[np.ndarray, "length 2"]:
    """The audio with zeros at its end."""
    if len(audio) == length:
        return audio
    return np.concatenate([audio, np.zeros((length - len(audio), 2), np.float32)])
