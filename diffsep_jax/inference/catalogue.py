"""Tracks one after another through one model: batches across tracks, read and computed ahead.

Four stages, of which the first three run in threads of their own, so that the device waits neither
for the reader nor for the writer:

    open: measure a track -> read: cut it into chunks -> separate: batches of chunks
        -> here: a track's stems

Each holds a few batches, whatever the length of the tracks; a track or two are measured ahead. The
last chunks of a track wait for those of the next one, which fill up their batch.
"""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import Block
from diffsep_jax.errors import UserError
from diffsep_jax.inference.background import in_background
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import Track, TrackChunk, TrackStream

if TYPE_CHECKING:
    from diffsep_jax.inference.engine import ChunkSeparator

# A track, and vocals to start from; raises UserError for bad files.
Opener = Callable[[], tuple[Track, Track | None]]
# (chunks done, chunks in all)
Progress = Callable[[int, int], None]

Vocals = Float32[np.ndarray, "segment 2"] | None

# Batches that the device has been given and whose results nobody has taken.
_UNDER_WAY = 2

# Chunks of silence go round the model; after so many chunks for each place in a batch, a batch goes
# to the model though it is not full.
_LONGEST_WAIT = 8

# Tracks that are measured and wait to be read.
_OPENED_AHEAD = 1


@dataclasses.dataclass(frozen=True)
class _Begin:
    """A track begins; or why it doesn't. What is left of it is passed over once it is abandoned."""

    stream: TrackStream | UserError
    abandoned: threading.Event = dataclasses.field(default_factory=threading.Event)


@dataclasses.dataclass(frozen=True)
class _End:
    """A track ends; with the reason, if it is before its end."""

    error: UserError | None = None


_Read = _Begin | TrackChunk | _End
_Separated = _Begin | tuple[TrackChunk, Vocals] | _End


class Separating:
    """A track whose stems are being computed; they are taken from it once."""

    def __init__(
        self,
        begin: _Begin,
        events: Iterator[_Separated],
        on_progress: Progress | None,
    ) -> None:
        self._begin, self._events, self._on_progress = begin, events, on_progress
        self._has_ended = isinstance(begin.stream, UserError)

    @property
    def track(self) -> Track:
        """The track. Raises the UserError that its opener raised."""
        return self._stream.track

    def blocks(self) -> Iterator[tuple[Block, Block]]:
        """(vocals, accompaniment) block by block, as `TrackStream.stems` gives them.

        Raises:
          UserError: see `track`, `TrackStream.chunks` and `TrackStream.stems`.
        """
        stream = self._stream
        yield from stream.stems(self._chunks(stream))
        self.finish()

    def abandon(self) -> None:
        """Passes over what is left of the track: it is neither read nor computed, if it can be."""
        self._begin.abandoned.set()
        # Whoever left the blocks before their end has his reason already.
        with contextlib.suppress(UserError):
            self.finish()

    def finish(self) -> None:
        """Takes what is left of the track. Raises the UserError that ended it early."""
        while not self._has_ended:
            self._next()

    @property
    def _stream(self) -> TrackStream:
        if isinstance(self._begin.stream, UserError):
            raise self._begin.stream
        return self._begin.stream

    def _chunks(self, stream: TrackStream) -> Iterator[tuple[TrackChunk, Vocals]]:
        total = len(stream.wanted)
        if self._on_progress is not None:
            self._on_progress(0, total)
        for index in range(stream.wanted.stop):
            event = self._next()
            assert isinstance(event, tuple)
            yield event
            if self._on_progress is not None and index in stream.wanted:
                self._on_progress(index - stream.wanted.start + 1, total)

    def _next(self) -> _Separated:
        event = next(self._events)
        if isinstance(event, _End):
            self._has_ended = True
            if event.error is not None:
                raise event.error
        return event


def separate_tracks(
    openers: Iterable[Opener],
    model: "ChunkSeparator",
    settings: SamplerSettings,
    *,
    overlap: float,
    on_progress: Progress | None = None,
) -> Generator[Separating]:
    """The tracks in order, each with its stems; one that is bad does not stop the others.

    Take a track's blocks before asking for the next track; what is left of them then is passed
    over, and not computed. Either all tracks have vocals to start from or none has.

    Args:
      openers: called one after another, ahead of the track that is being taken.
      model: separates the chunks.
      settings: how.
      overlap: share of a chunk that is cross-faded with the next, in [0, 0.5].
      on_progress: called at the start of a track and after each of its chunks.
    """
    depth = 2 * model.batch_size
    left = threading.Event()
    opened = in_background(_open(openers, model, overlap), _OPENED_AHEAD, left)
    read = in_background(_read(opened), depth, left)
    events = in_background(_separate(read, model, settings), depth, left)
    try:
        for begin in events:
            assert isinstance(begin, _Begin)
            separating = Separating(begin, events, on_progress)
            yield separating
            separating.abandon()
    finally:
        left.set()
        events.close()


def _open(openers: Iterable[Opener], model: "ChunkSeparator", overlap: float) -> Generator[_Begin]:
    for opener in openers:
        try:
            track, guess = opener()
            stream = TrackStream(track, model, overlap=overlap, guess=guess)
        except UserError as error:
            yield _Begin(error)
        else:
            yield _Begin(stream)


def _read(opened: Generator[_Begin]) -> Generator[_Read]:
    try:
        for begin in opened:
            yield begin
            if isinstance(begin.stream, UserError):
                continue
            try:
                for chunk in begin.stream.chunks():
                    if begin.abandoned.is_set():
                        break
                    yield chunk
            except UserError as error:
                yield _End(error)
            else:
                yield _End()
    finally:
        opened.close()


def _separate(
    events: Generator[_Read], model: "ChunkSeparator", settings: SamplerSettings
) -> Generator[_Separated]:
    """The same events in the same order, the chunks with their vocals.

    A batch is made of the next chunks that sound, of one track or of several.
    """
    under_way: collections.deque[tuple[list[_Read], Any]] = collections.deque()
    group: list[_Read] = []
    sounding: list[TrackChunk] = []
    abandoned = threading.Event()
    try:
        for event in events:
            if isinstance(event, _Begin):
                abandoned = event.abandoned
            elif isinstance(event, TrackChunk) and event.mixture is not None:
                if abandoned.is_set():
                    event = event._replace(mixture=None, guess=None)
                else:
                    sounding.append(event)
            group.append(event)
            if len(sounding) == model.batch_size or len(group) >= _LONGEST_WAIT * model.batch_size:
                under_way.append((group, _submit(sounding, model, settings)))
                group, sounding = [], []
                if len(under_way) == _UNDER_WAY:
                    yield from _results(*under_way.popleft())
        under_way.append((group, _submit(sounding, model, settings)))
        while under_way:
            yield from _results(*under_way.popleft())
    finally:
        events.close()


def _submit(chunks: list[TrackChunk], model: "ChunkSeparator", settings: SamplerSettings) -> Any:
    """Gives the chunks to the model and does not wait for it; None if there are none."""
    if not chunks:
        return None
    # A batch that is not full is filled up with zeros, so that one compiled program serves all.
    mixture = np.zeros((model.batch_size, model.segment, 2), np.float32)
    starts = np.zeros(model.batch_size, np.int32)
    guesses = None if chunks[0].guess is None else np.zeros_like(mixture)
    for i, chunk in enumerate(chunks):
        mixture[i], starts[i] = chunk.mixture, chunk.position
        if guesses is not None:
            guesses[i] = chunk.guess
    return model(mixture, starts, settings, guesses)


def _results(group: list[_Read], vocals: Any) -> Iterator[_Separated]:
    computed = iter(()) if vocals is None else iter(np.asarray(vocals))
    for event in group:
        if not isinstance(event, TrackChunk):
            yield event
        elif event.mixture is None:
            yield event, None
        else:
            # What is sent on holds the samples of the mixture once, as they were read.
            yield event._replace(mixture=None, guess=None), next(computed)
