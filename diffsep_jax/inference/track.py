"""Separation of one track in a stream: chunks in, vocals and accompaniment out, in bounded memory.

The track is read twice. The first pass checks every sample and measures the level, so that one gain
serves the whole track. The second pass is a chain of generators, each of which holds a few chunks:

    read -> scale, resample -> cut into chunks -> separate -> overlap-add -> resample, unscale

Accompaniment is the mixture as read minus the vocals, in float32 at the source's own rate: the sum
of the two is the mixture to one rounding.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float32, Int32

from diffsep_jax.audio import AudioSource, finite_blocks, resample_blocks
from diffsep_jax.decoding import Block
from diffsep_jax.errors import UserError

# In the order in which `separate_track` gives them.
STEMS = ("vocals", "accompaniment")

DEFAULT_OVERLAP = 0.2

# Under -160 dB a track holds no music: it is taken as silent, not raised to the model's level.
SILENCE_RMS = 1e-8

Chunks = Float32[np.ndarray, "batch segment 2"]
Starts = Int32[np.ndarray, "batch"]
# (position, samples)
Chunk = tuple[int, Float32[np.ndarray, "time 2"]]
# (chunks done, chunks in all)
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ChunkModel:
    """What a track needs to know of a model.

    Attributes:
      separate: (mixture chunks at the model's level, position of each chunk's first sample in the
        track at the model's rate) -> vocals chunks. Always called with `batch_size` chunks. With a
        guess of the vocals, its chunks are a third argument.
      segment: samples of a chunk.
      stride: samples in a frame of the model's deepest level; `segment` is a multiple of it.
      sample_rate: in Hz.
      batch_size: chunks of a call.
      target_rms: level of a mixture that the model was trained for.
    """

    separate: Callable[..., Chunks]
    segment: int
    stride: int
    sample_rate: int
    batch_size: int
    target_rms: float


@dataclasses.dataclass(frozen=True)
class Track:
    """A source whose samples are known to be good, its length in samples, and its level."""

    source: AudioSource
    num_frames: int
    rms: float

    @property
    def seconds(self) -> float:
        return self.num_frames / self.source.sample_rate


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the chunks of a track lie: chunk i starts at i x hop and has `segment` samples."""

    num_samples: int
    segment: int
    overlap: int

    @property
    def hop(self) -> int:
        return self.segment - self.overlap

    @property
    def num_chunks(self) -> int:
        return 1 + max(0, math.ceil((self.num_samples - self.segment) / self.hop))


def plan(num_samples: int, segment: int, overlap: float, stride: int = 1) -> Plan:
    """Cuts `num_samples` at the model's rate into chunks that overlap by a share of `segment`.

    `segment` is a multiple of `stride`, and so is the hop: every chunk lays the same grid of frames
    over the track. So the overlap may be shorter than asked, by less than a stride.

    Raises:
      UserError: overlap not in [0, 0.5], where at most two chunks meet.
    """
    check_overlap(overlap)
    # A product like 0.3 x 10 ends just under the whole number that it stands for.
    return Plan(num_samples, segment, int(overlap * segment / stride + 1e-6) * stride)


def check_overlap(overlap: float) -> None:
    """UserError unless `overlap` is a share of a chunk in [0, 0.5]."""
    if not 0 <= overlap <= 0.5:
        raise UserError(f"overlap {overlap}, expected a share of a chunk from 0 to 0.5")


def measure(source: AudioSource) -> Track:
    """Reads a source through: its length and RMS level. UserError if it is bad or has no sample."""
    num_frames, energy = 0, 0.0
    for block in finite_blocks(source):
        num_frames += len(block)
        energy += float(np.square(block, dtype=np.float64).sum())
    return Track(source, num_frames, math.sqrt(energy / (num_frames * source.num_channels)))


def check_same_length(track: Track, guess: Track) -> None:
    """UserError unless the two are equally long, up to a sample of the lower rate."""
    rates = track.source.sample_rate, guess.source.sample_rate
    if abs(guess.num_frames * rates[0] - track.num_frames * rates[1]) > max(rates):
        raise UserError(
            f"{guess.source.name}: {guess.num_frames} samples at {rates[1]} Hz, expected the length"
            f" of {track.source.name}, {track.num_frames} samples at {rates[0]} Hz"
        )


def separate_track(
    track: Track,
    model: ChunkModel,
    *,
    overlap: float = DEFAULT_OVERLAP,
    guess: Track | None = None,
    on_progress: Progress | None = None,
) -> Iterator[tuple[Block, Block]]:
    """Separates a track block by block: (vocals, accompaniment), each `[time, channel]` float32.

    The blocks have the source's rate and channels and add up to its length. Mono is given to the
    model as two equal channels, and the mean of its two channels is taken. Chunks of digital
    silence have silent vocals, whatever the model would make of them; so has a silent track.

    Args:
      track: from `measure`.
      overlap: share of a chunk, in [0, 0.5].
      guess: vocals for the model to start from, of the track's length at any rate, mono or stereo;
        the mixture's gain is theirs too.
      on_progress: called at the start and after each batch.

    Raises:
      UserError: see `plan` and `check_same_length`; a source of 2^31 samples, or shorter than it
        was when measured; an output that is not finite, or that leaves the range of float32 at the
        source's level.
    """
    source = track.source
    if guess is not None:
        check_same_length(track, guess)
    gain = np.float32(model.target_rms / track.rms if track.rms > SILENCE_RMS else 0.0)
    # Resampling there and back rounds the length twice: a few zeros keep it from ending short.
    extra = 0
    if source.sample_rate != model.sample_rate:
        extra = math.ceil(source.sample_rate / model.sample_rate)
    num_samples = _resampled(track.num_frames + extra, source.sample_rate, model.sample_rate)
    chunk_plan = plan(num_samples, model.segment, overlap, model.stride)
    if num_samples + model.segment > np.iinfo(np.int32).max:  # positions are int32
        raise UserError(
            f"{source.name}: {track.seconds / 3600:.1f} hours, expected fewer than 2^31 samples "
            f"at {model.sample_rate} Hz; cut the file in two"
        )

    mixture = Fifo(source.num_channels)

    def read(audio: Track, keep: Callable[[Block], None] | None) -> Iterator[Block]:
        num_frames = 0
        for block in audio.source.blocks():
            num_frames += len(block)
            if keep is not None:
                keep(block)
            yield np.broadcast_to(block * gain, (len(block), 2))
        if num_frames < audio.num_frames:
            raise UserError(f"{audio.source.name}: became shorter while it was being separated")
        yield np.zeros((extra, 2), np.float32)

    def chunks_of(audio: Track, keep: Callable[[Block], None] | None = None) -> Iterator[Chunk]:
        rate = audio.source.sample_rate
        return cut(resample_blocks(read(audio, keep), rate, model.sample_rate), chunk_plan)

    chunks = chunks_of(track, keep=mixture.push)
    guesses = None if guess is None else (chunk for _, chunk in chunks_of(guess))
    separated = _separate_chunks(chunks, guesses, model, chunk_plan, source.name, on_progress)
    blocks = overlap_add(separated, chunk_plan)
    remaining = track.num_frames
    for block in resample_blocks(blocks, model.sample_rate, source.sample_rate):
        with np.errstate(over="ignore"):
            vocals = block[:remaining] / gain if gain else block[:remaining]
            if source.num_channels == 1:
                vocals = vocals.mean(axis=1, keepdims=True)
            accompaniment = mixture.pop(len(vocals)) - vocals
        if not (np.isfinite(vocals).all() and np.isfinite(accompaniment).all()):
            seconds = (track.num_frames - remaining) / source.sample_rate
            raise UserError(
                f"{source.name}: too loud near {seconds:.1f} s: the stems would leave the range of "
                "float32; bring the samples to a full scale of 1"
            )
        remaining -= len(vocals)
        yield vocals, accompaniment
    if remaining:
        raise AssertionError(f"{source.name}: {remaining} samples are missing at the end")


class Fifo:
    """Samples in order of arrival: blocks of any length in, blocks of a chosen length out."""

    def __init__(self, num_channels: int) -> None:
        self._blocks = [np.zeros((0, num_channels), np.float32)]
        self.length = 0

    def push(self, block: Block) -> None:
        self._blocks.append(block)
        self.length += len(block)

    def pop(self, count: int, keep: int = 0) -> Block:
        """The oldest `count` samples, of which the last `keep` stay to be taken once more."""
        if count > self.length:
            raise IndexError(f"{count} samples taken of {self.length}")
        samples = np.concatenate(self._blocks)
        self._blocks = [samples[count - keep :]]
        self.length -= count - keep
        return samples[:count]


def cut(blocks: Iterable[Block], plan: Plan) -> Iterator[Chunk]:
    """The plan's chunks with their positions; the last is filled up with zeros."""
    blocks = iter(blocks)
    fifo = Fifo(2)
    for index in range(plan.num_chunks):
        while fifo.length < plan.segment and (block := next(blocks, None)) is not None:
            fifo.push(block)
        if fifo.length < plan.segment:
            fifo.push(np.zeros((plan.segment - fifo.length, 2), np.float32))
        yield index * plan.hop, fifo.pop(plan.segment, keep=plan.overlap)


def overlap_add(chunks: Iterable[Block], plan: Plan) -> Iterator[Block]:
    """Joins the plan's chunks by linear cross-fades into blocks of `num_samples` in all.

    A fade is old + w (new - old): the two weights sum to one exactly, and where two chunks agree
    the result is bitwise theirs.
    """
    fade = (np.arange(plan.overlap, dtype=np.float32) + np.float32(0.5))[:, None] / plan.overlap
    fade = fade.astype(np.float32)
    tail = None
    for index, chunk in enumerate(chunks):
        if tail is not None:
            faded = tail + fade * (chunk[: plan.overlap] - tail)
            chunk = np.concatenate([faded, chunk[plan.overlap :]])
        is_last = index == plan.num_chunks - 1
        yield chunk[: plan.num_samples - index * plan.hop if is_last else plan.hop]
        tail = chunk[plan.hop :]


def _separate_chunks(
    chunks: Iterator[Chunk],
    guesses: Iterator[Block] | None,
    model: ChunkModel,
    plan: Plan,
    name: str,
    on_progress: Progress | None,
) -> Iterator[Block]:
    if on_progress is not None:
        on_progress(0, plan.num_chunks)
    done = 0
    while batch := list(itertools.islice(chunks, model.batch_size)):
        # The last batch is filled up with zeros, so that one compiled program serves all.
        mixture = np.zeros((model.batch_size, model.segment, 2), np.float32)
        starts = np.zeros(model.batch_size, np.int32)
        for i, (start, chunk) in enumerate(batch):
            mixture[i], starts[i] = chunk, start
        arguments = [mixture, starts]
        if guesses is not None:
            arguments.append(np.zeros_like(mixture))
            for i, guess in enumerate(itertools.islice(guesses, len(batch))):
                arguments[-1][i] = guess
        is_silent = ~mixture.any(axis=(1, 2))
        vocals = np.zeros_like(mixture)
        if not is_silent.all():
            separated = model.separate(*arguments)
            vocals[~is_silent] = separated[~is_silent]
        if not np.isfinite(vocals).all():
            raise UserError(
                f"{name}: the model's output is not finite near "
                f"{starts[0] / model.sample_rate:.1f} s, expected finite samples; "
                "its weights may be damaged"
            )
        done += len(batch)
        if on_progress is not None:
            on_progress(done, plan.num_chunks)
        yield from vocals[: len(batch)]


def _resampled(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Length after `resample_blocks`."""
    return (2 * num_samples * to_rate + from_rate) // (2 * from_rate)
