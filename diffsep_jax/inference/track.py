"""One track as a stream: its mixture in chunks for the model, and its stems from the vocals.

The track is read twice. The first pass, `measure`, checks every sample and finds the level, so that
one gain serves the whole track. The second is two chains of generators with the model between them,
each of which holds a few chunks:

    chunks:  read -> scale -> resample -> cut
    stems:   overlap-add -> resample -> unscale -> limit

Accompaniment is the mixture as read minus the vocals, in float32 at the source's own rate: the sum
of the two is the mixture to one rounding.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import AudioSource, Block, finite_blocks, resample_blocks
from diffsep_jax.errors import UserError
from diffsep_jax.inference.chunks import Fifo, cut, overlap_add, plan
from diffsep_jax.inference.limiter import limit, reach

if TYPE_CHECKING:  # commands answer without the networks
    from diffsep_jax.inference.engine import ChunkSeparator

# In the order in which `TrackStream.stems` gives them.
STEMS = ("vocals", "accompaniment")

# A track below -160 dB is silent, not raised to the model's level.
SILENCE_RMS = 1e-8

# A channel's mean counts as DC above this share of the track's RMS. Three times as much costs
# `small` 1.2 dB of SDR (the mean of eight clips); less does no harm, and silence stays zeros.
_DC = 0.1

# Longer than a resampler's filter: chunks this far outside an excerpt still reach into it.
_RESAMPLER_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Track:
    """A source whose length and level are known, see `measure`, and the excerpt to separate.

    Only samples [start, stop) are separated. The result equals that part of a full separation.

    Attributes:
      source: all of its samples are finite.
      num_frames: its length in samples.
      rms: level of the whole source without its DC.
      dc: mean of each channel, which the model does not get; 0 where it is small.
      start, stop: the excerpt, in samples of the source.
    """

    source: AudioSource
    num_frames: int
    rms: float
    dc: Float32[np.ndarray, "channel"]
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        """Length of the excerpt."""
        return (self.stop - self.start) / self.source.sample_rate


class TrackChunk(NamedTuple):
    """A chunk on its way to the model and back.

    Attributes:
      position: first sample in the track, at the model's rate.
      mixture: at the model's level; None where there is nothing to separate: digital silence, and
        what lies outside the excerpt.
      guess: vocals to start from, scaled as the mixture.
      source_samples: the mixture as it was read since the previous chunk.
      vocals: the model's output; None if there was nothing to separate.
    """

    position: int
    mixture: Float32[np.ndarray, "segment 2"] | None
    guess: Float32[np.ndarray, "segment 2"] | None
    source_samples: Block
    vocals: Float32[np.ndarray, "segment 2"] | None = None


def measure(
    source: AudioSource, *, start_seconds: float = 0.0, duration_seconds: float | None = None
) -> Track:
    """Reads a source through to find its length, its DC and its RMS level.

    Raises:
      UserError: a bad source, or one without samples; an excerpt that starts after its end.
    """
    num_frames, total, energy = 0, np.zeros(source.num_channels), 0.0
    for block in finite_blocks(source):
        num_frames += len(block)
        total += block.sum(axis=0, dtype=np.float64)
        energy += float(np.square(block, dtype=np.float64).sum())
    mean, power = total / num_frames, energy / (num_frames * source.num_channels)
    dc = np.where(np.abs(mean) > _DC * math.sqrt(power), mean, 0.0)
    rms = math.sqrt(max(0.0, power - float(np.mean(dc**2))))
    start, stop = round(start_seconds * source.sample_rate), num_frames
    if start >= num_frames:
        raise UserError(
            f"{source.name}: start is {start_seconds:g} s; expected less than its length,"
            f" {num_frames / source.sample_rate:.3f} s"
        )
    if duration_seconds is not None:
        stop = min(stop, start + max(1, round(duration_seconds * source.sample_rate)))
    return Track(source, num_frames, rms, dc.astype(np.float32), start, stop)


class TrackStream:
    """The two ends of one track's separation: chunks for the model, stems from its vocals.

    Mono is fed to the model as two equal channels, and its two output channels are averaged.
    Chunks of digital silence have silent vocals, whatever the model would make of them, and so do
    silent tracks. The chunks of an excerpt are those of the whole track.
    """

    def __init__(
        self,
        track: Track,
        model: "ChunkSeparator",
        *,
        overlap: float,
        limit_vocals: bool = False,
        guess: Track | None = None,
    ) -> None:
        """Plans the chunks; `overlap` and `limit_vocals` are those of `Separator.separate`.

        Args:
          track: the mixture.
          model: its rate, segment and level; it is not called.
          guess: vocals for the model to start from, as long as the track or as the excerpt, at any
            rate, mono or stereo; the mixture's gain is applied to them too.

        Raises:
          UserError: an overlap out of range, a guess of another length, a source of 2^31 samples.
        """
        self.track, self.model, self.guess = track, model, guess
        self._guess_lead = 0 if guess is None else _lead(track, guess)
        gain = model.target_rms / track.rms if track.rms > SILENCE_RMS else 0.0
        self._gain = np.float32(gain)
        from_rate, to_rate = track.source.sample_rate, model.sample_rate
        # Resampling there and back rounds the length twice: a few zeros keep it from ending short.
        self._extra = 0 if from_rate == to_rate else math.ceil(from_rate / to_rate)
        doubled = 2 * (track.num_frames + self._extra) * to_rate // from_rate
        num_samples = (doubled + 1) // 2  # as `resample_blocks` rounds
        self.plan = plan(num_samples, model.segment, overlap, model.stride)
        if num_samples + model.segment > np.iinfo(np.int32).max:  # positions are int32
            raise UserError(
                f"{track.source.name}: its length is {num_samples / to_rate / 3600:.1f} hours;"
                f" expected fewer than 2^31 samples at {to_rate} Hz. Cut the file in two"
            )
        self._limits = limit_vocals
        self._end = track.stop  # of what is joined: the limit looks beyond the excerpt
        margin = 0 if from_rate == to_rate else math.ceil(_RESAMPLER_SECONDS * to_rate)
        if limit_vocals:
            self._end = min(track.num_frames, track.stop + reach(from_rate))
            margin += math.ceil(reach(from_rate) * to_rate / from_rate)
        self.wanted = self.plan.touching(
            track.start * to_rate // from_rate - margin,
            -(-track.stop * to_rate // from_rate) + margin,
        )
        """Indices of the chunks that overlap the excerpt."""

    def chunks(self) -> Iterator[TrackChunk]:
        """The chunks of the track, from its start to the end of the excerpt.

        Raises:
          UserError: the source is shorter than when it was measured, or cannot be read any more.
        """
        source_samples = [np.zeros((0, self.track.source.num_channels), np.float32)]
        mixture = self._cut(self.track, source_samples=source_samples)
        guesses = None if self.guess is None else self._cut(self.guess, lead=self._guess_lead)
        for index in range(self.wanted.stop):
            chunk = next(mixture)
            guess = None if guesses is None else next(guesses)
            is_wanted = index in self.wanted and chunk.any()
            yield TrackChunk(
                position=index * self.plan.hop,
                mixture=chunk if is_wanted else None,
                guess=guess if is_wanted else None,
                source_samples=np.concatenate(source_samples),
            )
            del source_samples[1:]

    def stems(self, separated: Iterable[TrackChunk]) -> Iterator[tuple[Block, Block]]:
        """The excerpt block by block: (vocals, accompaniment), each `[time, channel]` float32.

        The blocks have the source's rate and channels and add up to the excerpt's length.

        Args:
          separated: the chunks in order, with their vocals.

        Raises:
          UserError: stems that are not finite, or leave the range of float32.
        """
        track, rate = self.track, self.track.source.sample_rate
        pairs = self._joined(separated)
        if self._limits:
            pairs = limit(pairs, rate, track.dc)
        position = 0
        for vocals, source_samples in pairs:
            kept = slice(max(0, track.start - position), max(0, track.stop - position))
            position += len(vocals)
            vocals, source_samples = vocals[kept], source_samples[kept]
            if not len(vocals):
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                accompaniment = source_samples - vocals
            if not (np.isfinite(vocals).all() and np.isfinite(accompaniment).all()):
                raise UserError(
                    f"{track.source.name}: the stems are not finite near {position / rate:.1f} s;"
                    " expected samples with a full scale of 1 and a model with undamaged weights"
                )
            yield vocals, accompaniment
        assert position == self._end, "the chunks ended before the excerpt"

    def _joined(self, separated: Iterable[TrackChunk]) -> Iterator[tuple[Block, Block]]:
        """(vocals, mixture) from the track's start, at its rate and level."""
        track = self.track
        mixture = Fifo(track.source.num_channels)
        silence = np.zeros((self.model.segment, 2), np.float32)

        def vocals_chunks() -> Iterator[Block]:
            for chunk in separated:
                mixture.push(chunk.source_samples)
                yield silence if chunk.vocals is None else chunk.vocals

        position = 0
        blocks = overlap_add(vocals_chunks(), self.plan)
        for block in resample_blocks(blocks, self.model.sample_rate, track.source.sample_rate):
            block = block[: self._end - position]
            position += len(block)
            with np.errstate(over="ignore"):
                vocals = block / self._gain if self._gain else block
                if track.source.num_channels == 1:
                    vocals = vocals.mean(axis=1, keepdims=True)
            yield vocals, mixture.pop(len(block))

    def _cut(
        self, audio: Track, *, lead: int = 0, source_samples: list[Block] | None = None
    ) -> Iterator[Float32[np.ndarray, "segment 2"]]:
        """The chunks of a source at the model's rate and level, after `lead` samples of silence.

        Blocks of the source are appended to `source_samples` as they are read.
        """

        def scaled() -> Iterator[Block]:
            yield np.zeros((lead, 2), np.float32)
            num_frames = 0
            for block in audio.source.blocks():
                num_frames += len(block)
                if source_samples is not None:
                    source_samples.append(block)
                yield np.broadcast_to((block - audio.dc) * self._gain, (len(block), 2))
            if num_frames < audio.num_frames:
                raise UserError(f"{audio.source.name}: became shorter while it was being separated")
            yield np.zeros((self._extra, 2), np.float32)

        rate = audio.source.sample_rate
        return cut(resample_blocks(scaled(), rate, self.model.sample_rate), self.plan)


def _lead(track: Track, guess: Track) -> int:
    """Where the guess starts in the track, in samples at the guess's rate.

    Raises UserError unless it is as long as the track or the excerpt, to a sample of either rate.
    """
    rate, guess_rate = track.source.sample_rate, guess.source.sample_rate
    for start, num_frames in ((0, track.num_frames), (track.start, track.stop - track.start)):
        if abs(guess.num_frames * rate - num_frames * guess_rate) <= max(rate, guess_rate):
            return round(start * guess_rate / rate)
    raise UserError(
        f"{guess.source.name}: its length is {guess.num_frames} samples at {guess_rate} Hz;"
        f" expected {track.num_frames} samples at {rate} Hz, the length of {track.source.name}, or"
        " that of the excerpt."
        " Encoders of mp3 and aac pad the ends; wav and flac keep the length"
    )
