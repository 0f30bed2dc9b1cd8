"""A recording's files to two stems: stereo float32, at one rate and of one length."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from data_pipelines.builders.recordings import Recording, StemFile
from diffsep_jax.audio.read import AudioFile, finite_blocks, resample_blocks

FULL_SCALE = 32767 / 32768
"""Samples from here on are counted as clipped."""

_SIXTEEN_BITS_OR_LESS = ("PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW")
_LOSSY = (".mp3", ".mp4", ".m4a", ".ogg", ".opus")

Audio = Float32[np.ndarray, "time 2"]


class Stems(NamedTuple):
    """What a recording holds.

    Attributes:
        vocals: zeros for an instrumental.
        accompaniment: the sum of the other stems, or mixture - vocals.
        mixture_error: RMS of (mixture file - both stems) over RMS of the mixture file; None where
            there is no mixture beside the stems.
        clipped: samples of the files at full scale.
        notes: what was mended, in words.
    """

    vocals: Audio
    accompaniment: Audio
    mixture_error: float | None
    clipped: int
    notes: tuple[str, ...]


def read_stems(recording: Recording, sample_rate: int) -> Stems:
    """Decodes, resamples (soxr VHQ), makes mono stereo, and pads what is shorter with zeros.

    Raises UserError, naming the file, for one that cannot be read whole. Memory: about six times
    one stem of the recording as float32.
    """
    reader = _Reader(sample_rate)
    accompaniment = reader.sum(recording.others) if recording.others else None
    vocals = reader.sum(recording.vocals) if recording.vocals else None
    mixture = reader.sum([recording.mixture]) if recording.mixture else None
    length = max(len(audio) for audio in (vocals, accompaniment, mixture) if audio is not None)
    vocals = np.zeros((length, 2), np.float32) if vocals is None else _pad(vocals, length)
    error = None
    if accompaniment is None:
        assert mixture is not None
        accompaniment = _pad(mixture, length) - vocals
    else:
        accompaniment = _pad(accompaniment, length)
        if mixture is not None:
            mixture = _pad(mixture, length)
            error = _rms(mixture - vocals - accompaniment) / max(_rms(mixture), 1e-9)
    notes = []
    shortest, longest = min(reader.lengths), max(reader.lengths)
    if longest - shortest > 1:
        missing = (longest - shortest) / sample_rate
        notes.append(f"stems of unequal length: the shortest was filled up with {missing:.2f} s")
    return Stems(vocals, accompaniment, error, reader.clipped, tuple(notes))


def is_sixteen_bit(file: StemFile) -> bool:
    """Whether 16 bits hold what the file holds: PCM of up to 16 bits, or a lossy format."""
    if file.path.suffix.lower() in _LOSSY:
        return True
    try:
        return soundfile.info(file.path).subtype in _SIXTEEN_BITS_OR_LESS
    except soundfile.SoundFileError:
        return True  # told when it is read


class _Reader:
    """Sums files; remembers their lengths and clipped samples."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self.lengths: list[int] = []
        self.clipped = 0

    def sum(self, files: Sequence[StemFile]) -> Audio:
        total = self._read(files[0])
        for file in files[1:]:
            more = self._read(file)
            length = max(len(total), len(more))
            total = _pad(total, length)
            total += _pad(more, length)
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
            yield np.repeat(block, 2, axis=1) if block.shape[1] == 1 else block


def _pad(audio: Audio, length: int) -> Float32[np.ndarray, "length 2"]:
    if len(audio) == length:
        return audio
    return np.concatenate([audio, np.zeros((length - len(audio), 2), np.float32)])


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
