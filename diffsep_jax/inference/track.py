"""One track as a stream: its mixture in chunks for the model, and its stems from what comes back.

The track is read twice. The first pass, `measure`, checks every sample and finds the level, so that
one gain serves the whole track. The second is two chains of generators, each of which holds a few
chunks; the model stands between them, and each may run in a thread of its own:

    chunks:  read -> scale -> resample -> cut
    stems:   overlap-add -> resample -> unscale

Accompaniment is the mixture as read minus the vocals, in float32 at the source's own rate: the sum
of the two is the mixture to one rounding.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import AudioSource, Block, finite_blocks, resample_blocks
from diffsep_jax.errors import UserError
from diffsep_jax.inference.chunks import Chunk, Fifo, cut, overlap_add, plan

if TYPE_CHECKING:  # commands answer without the networks
    from diffsep_jax.inference.engine import ChunkSeparator

# In the order in which `TrackStream.stems` gives them.
STEMS = ("vocals", "accompaniment")

# Under -160 dB a track holds no music: it is taken as silent, not raised to the model's level.
SILENCE_RMS = 1e-8

# More than a resampler's filter is long: this far beyond the ends of an excerpt, chunks still
# have a part in its samples.
_RESAMPLER_SECONDS = 0.25

# More than encoders of mp3 and aac add to the ends.
_PADDING_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Track:
    """A source whose samples are known to be good, its length in samples, its level, the excerpt.

    Only the samples from `start` to before `stop` are separated; they become what they are in the
    separation of the whole.
    """

    source: AudioSource
    num_frames: int
    rms: float
    start: int = 0
    stop: int | None = None

    @property
    def end(self) -> int:
        """The first sample after the excerpt."""
        return self.num_frames if self.stop is None else self.stop

    @property
    def seconds(self) -> float:
        """Length of the excerpt."""
        return (self.end - self.start) / self.source.sample_rate


class TrackChunk(NamedTuple):
    """A chunk on its way to the model.

    Attributes:
      position: of its first sample in the track, at the model's rate.
      mixture: at the model's level; None where there is nothing to separate, digital silence or
        what lies outside of the excerpt.
      guess: vocals to start from, scaled as the mixture.
      played: the mixture as it was read, since the chunk before.
      vocals: the model's answer; None before it comes, and where there is nothing to separate.
    """

    position: int
    mixture: Float32[np.ndarray, "segment 2"] | None
    guess: Float32[np.ndarray, "segment 2"] | None
    played: Block
    vocals: Float32[np.ndarray, "segment 2"] | None = None


def measure(
    source: AudioSource, *, start_seconds: float = 0.0, duration_seconds: float | None = None
) -> Track:
    """Reads a source through: its length and RMS level, of the whole of it.

    Raises:
      UserError: it is bad or has no sample; an excerpt that starts after its end, or is empty.
    """
    num_frames, energy = 0, 0.0
    for block in finite_blocks(source):
        num_frames += len(block)
        energy += float(np.square(block, dtype=np.float64).sum())
    rms = math.sqrt(energy / (num_frames * source.num_channels))
    start = round(start_seconds * source.sample_rate)
    if start >= num_frames:
        raise UserError(
            f"{source.name}: start at {start_seconds:g} s, expected less than its length,"
            f" {num_frames / source.sample_rate:.3f} s"
        )
    stop = None
    if duration_seconds is not None:
        stop = min(num_frames, start + max(1, round(duration_seconds * source.sample_rate)))
    return Track(source, num_frames, rms, start, stop)


class TrackStream:
    """The two ends of one track's separation: chunks for the model, stems from its answers.

    Mono is given to the model as two equal channels, and the mean of its two channels is taken.
    Chunks of digital silence have silent vocals, whatever the model would make of them; so has a
    silent track. The chunks of an excerpt are those of the whole track.
    """

    def __init__(
        self, track: Track, model: "ChunkSeparator", *, overlap: float, guess: Track | None = None
    ) -> None:
        """Plans the chunks.

        Args:
          track: from `measure`.
          model: its rate, segment and level; it is not called.
          overlap: share of a chunk, in [0, 0.5].
          guess: vocals for the model to start from, as long as the track or as the excerpt, at any
            rate, mono or stereo; the mixture's gain is theirs too.

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
        num_samples = _resampled(track.num_frames + self._extra, from_rate, to_rate)
        self.plan = plan(num_samples, model.segment, overlap, model.stride)
        if num_samples + model.segment > np.iinfo(np.int32).max:  # positions are int32
            raise UserError(
                f"{track.source.name}: {num_samples / to_rate / 3600:.1f} hours, expected fewer"
                f" than 2^31 samples at {to_rate} Hz; cut the file in two"
            )
        margin = 0 if from_rate == to_rate else math.ceil(_RESAMPLER_SECONDS * to_rate)
        self.wanted = self.plan.touching(
            track.start * to_rate // from_rate - margin,
            -(-track.end * to_rate // from_rate) + margin,
        )
        """Numbers of the chunks that have a part in the excerpt."""

    def chunks(self) -> Iterator[TrackChunk]:
        """The chunks of the track, from its start to the end of the excerpt.

        Raises:
          UserError: the source is shorter than it was when measured, or can't be read any more.
        """
        played: list[Block] = []
        empty = np.zeros((0, self.track.source.num_channels), np.float32)
        mixture = self._cut(self.track, played.append)
        guesses = None if self.guess is None else self._cut(self.guess, lead=self._guess_lead)
        for index in range(self.wanted.stop):
            position, chunk = next(mixture)
            guess = None if guesses is None else next(guesses)[1]
            wanted = index in self.wanted and chunk.any()
            block = np.concatenate([empty, *played])
            played.clear()
            yield TrackChunk(position, chunk if wanted else None, guess if wanted else None, block)

    def stems(self, separated: Iterable[TrackChunk]) -> Iterator[tuple[Block, Block]]:
        """The excerpt block by block: (vocals, accompaniment), each `[time, channel]` float32.

        The blocks have the source's rate and channels and add up to the excerpt's length.

        Args:
          separated: the chunks in order with their vocals, None being silence.

        Raises:
          UserError: vocals that are not finite, or that leave the range of float32 at the source's
            level.
        """
        track, model = self.track, self.model
        rate, num_channels = track.source.sample_rate, track.source.num_channels
        mixture = Fifo(num_channels)
        silence = np.zeros((model.segment, 2), np.float32)

        def vocals_chunks() -> Iterator[Block]:
            for chunk in separated:
                mixture.push(chunk.played)
                vocals = silence if chunk.vocals is None else chunk.vocals
                if not np.isfinite(vocals).all():
                    raise UserError(
                        f"{track.source.name}: the model's output is not finite near"
                        f" {chunk.position / model.sample_rate:.1f} s, expected finite samples;"
                        " its weights may be damaged"
                    )
                yield vocals

        position = 0
        blocks = overlap_add(vocals_chunks(), self.plan)
        for block in resample_blocks(blocks, model.sample_rate, rate):
            block = block[: track.end - position]
            played = mixture.pop(len(block))
            before = min(max(0, track.start - position), len(block))
            position += len(block)
            if before == len(block):
                continue
            with np.errstate(over="ignore"):
                vocals = block[before:] / self._gain if self._gain else block[before:]
                if num_channels == 1:
                    vocals = vocals.mean(axis=1, keepdims=True)
                accompaniment = played[before:] - vocals
            if not (np.isfinite(vocals).all() and np.isfinite(accompaniment).all()):
                seconds = (position - len(vocals)) / rate
                raise UserError(
                    f"{track.source.name}: too loud near {seconds:.1f} s: the stems would leave the"
                    " range of float32; bring the samples to a full scale of 1"
                )
            yield vocals, accompaniment
        if position < track.end:
            raise AssertionError(f"{track.source.name}: {track.end - position} samples are missing")

    def _cut(
        self, audio: Track, keep: Callable[[Block], None] | None = None, *, lead: int = 0
    ) -> Iterator[Chunk]:
        """The chunks of a source at the model's rate and level, after `lead` samples of silence."""
        blocks = resample_blocks(
            self._read(audio, keep, lead), audio.source.sample_rate, self.model.sample_rate
        )
        return cut(blocks, self.plan)

    def _read(
        self, audio: Track, keep: Callable[[Block], None] | None, lead: int
    ) -> Iterator[Block]:
        if lead:
            yield np.zeros((lead, 2), np.float32)
        num_frames = 0
        for block in audio.source.blocks():
            num_frames += len(block)
            if keep is not None:
                keep(block)
            yield np.broadcast_to(block * self._gain, (len(block), 2))
        if num_frames < audio.num_frames:
            raise UserError(f"{audio.source.name}: became shorter while it was being separated")
        yield np.zeros((self._extra, 2), np.float32)


def _lead(track: Track, guess: Track) -> int:
    """Samples of the guess's rate by which it starts after the track.

    UserError unless it is as long as the track or as the excerpt, up to a sample of the lower rate.
    """
    rate, guess_rate = track.source.sample_rate, guess.source.sample_rate

    def fits(num_frames: int) -> bool:
        difference = guess.num_frames * rate - num_frames * guess_rate
        return abs(difference) <= max(rate, guess_rate)

    if fits(track.num_frames):
        return 0
    if fits(track.end - track.start):
        return round(track.start * guess_rate / rate)
    off = abs(guess.num_frames / guess_rate - track.num_frames / rate)
    raise UserError(
        f"{guess.source.name}: {guess.num_frames} samples at {guess_rate} Hz, expected the length"
        f" of {track.source.name}, {track.num_frames} samples at {rate} Hz"
        + ("" if track.stop is None and not track.start else ", or of the excerpt")
        + (
            "; an encoder may have padded it: have it as wav or flac"
            if off < _PADDING_SECONDS
            else ""
        )
    )


def _resampled(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Length after `resample_blocks`."""
    return (2 * num_samples * to_rate + from_rate) // (2 * from_rate)
