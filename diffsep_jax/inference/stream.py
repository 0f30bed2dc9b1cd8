"""Many tracks through one model: chunks read ahead, batches across tracks, stems as they are taken.

One thread reads ahead. The caller's thread forms batches, which the devices compute meanwhile, and
hands out the stems. A second thread submits the batches: on several devices of a CPU that can take
as long as an earlier batch, during which Python would not react to Ctrl-C.

    _read      open a track, measure it and cut it into chunks         (in the thread)
    _separate  collect chunks into batches and submit them to the model
    blocks     join a track's separated chunks into stems

Memory holds a few batches, whatever the length of the tracks. The last chunks of a track share a
batch with the first of the next.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import Block
from diffsep_jax.errors import UserError
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import Track, TrackChunk, TrackStream

if TYPE_CHECKING:
    from diffsep_jax.inference.engine import ChunkSeparator

T = TypeVar("T")

# A track, and vocals to start from; raises UserError for bad files.
Opener = Callable[[], tuple[Track, Track | None]]
# (chunks done, chunks in all)
Progress = Callable[[int, int], None]

# Batches submitted to the devices whose results are not taken yet.
_UNDER_WAY = 2

# Batches of chunks that are read ahead of those.
_READ_AHEAD = 4

# Silent chunks bypass the model. After this many chunks for each place in a batch, the batch is
# submitted although it is not full.
_LONGEST_WAIT = 8

_POLL_SECONDS = 0.005


class SeparatedTrack:
    """A track whose stems are computed lazily; `blocks` can be iterated only once."""

    def __init__(self, stream: TrackStream | UserError) -> None:
        self._stream = stream
        self._items: Iterator[_Item] = iter(())
        self._is_abandoned = False

    @property
    def track(self) -> Track:
        """The track. Raises UserError if it could not be opened."""
        return self._opened.track

    def blocks(self, on_progress: Progress | None = None) -> Iterator[tuple[Block, Block]]:
        """(vocals, accompaniment) block by block, as `TrackStream.stems` gives them.

        Args:
          on_progress: called at the start and after each chunk.

        Raises:
          UserError: see `track`, `TrackStream.chunks` and `TrackStream.stems`.
        """
        return self._opened.stems(self._chunks(on_progress or (lambda done, total: None)))

    @property
    def _opened(self) -> TrackStream:
        if isinstance(self._stream, UserError):
            raise self._stream
        return self._stream

    def _chunks(self, on_progress: Progress) -> Iterator[TrackChunk]:
        wanted = self._opened.wanted
        on_progress(0, len(wanted))
        for index, (_, chunk) in enumerate(itertools.islice(self._items, wanted.stop)):
            if isinstance(chunk, UserError):
                raise chunk
            assert chunk is not None
            yield chunk
            if index in wanted:
                on_progress(index - wanted.start + 1, len(wanted))


# A track and its next chunk. A track starts with a None item; an error is its last item.
_Item = tuple[SeparatedTrack, TrackChunk | UserError | None]


def separate_tracks(
    openers: Iterable[Opener],
    model: "ChunkSeparator",
    settings: SamplerSettings,
    *,
    overlap: float,
    limit_vocals: bool = False,
) -> Generator[SeparatedTrack]:
    """The tracks in order, each with its stems. A bad track does not stop the others.

    Reading begins with this call, so that the model can be compiled meanwhile.

    Take a track's blocks before asking for the next track: blocks not taken by then are skipped.
    Either all tracks have vocals to start from or none has.

    `openers` are called one after another, ahead of the track that is being taken. `overlap` and
    `limit_vocals` are those of `Separator.separate`.
    """

    def stream_of(track: Track, guess: Track | None) -> TrackStream:
        return TrackStream(track, model, overlap=overlap, limit_vocals=limit_vocals, guess=guess)

    ahead = read_ahead(_read(openers, stream_of), _READ_AHEAD * model.batch_size)
    return _tracks(ahead, model, settings)


def _tracks(
    ahead: Generator["_Item"], model: "ChunkSeparator", settings: SamplerSettings
) -> Generator[SeparatedTrack]:
    with contextlib.closing(ahead), contextlib.closing(_separate(ahead, model, settings)) as items:
        for track, chunk in items:
            if chunk is None:  # otherwise the rest of a track whose blocks were not all taken
                track._items = items
                yield track
                track._is_abandoned = True


def read_ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """The same items, computed in a thread up to `depth` ahead, from this call on.

    An exception in `items` is raised here, after the items before it. Closing it, or
    dropping it if it never began, does not wait for the thread, which ends with the item that it is
    computing.
    """
    ahead: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def run() -> None:
        while room.acquire() and not closed.is_set():
            future: concurrent.futures.Future[T] = concurrent.futures.Future()
            try:
                future.set_result(next(items))
            except BaseException as error:  # StopIteration too
                future.set_exception(error)
                closed.set()
            ahead.put(future.result)

    def stop() -> None:
        closed.set()
        room.release()

    def take() -> Generator[T]:
        try:
            while True:
                try:
                    item = ahead.get()()
                except StopIteration:
                    return
                room.release()
                yield item
        finally:
            stop()

    threading.Thread(target=run, daemon=True, name="diffsep-reader").start()
    taken = take()
    weakref.finalize(taken, stop)  # one that never began skips its `finally`
    return taken


def _read(
    openers: Iterable[Opener], stream_of: Callable[[Track, Track | None], TrackStream]
) -> Iterator[_Item]:
    for opener in openers:
        try:
            stream = stream_of(*opener())
        except UserError as error:
            yield SeparatedTrack(error), None
            continue
        separated = SeparatedTrack(stream)
        yield separated, None
        try:
            for chunk in stream.chunks():
                if separated._is_abandoned:
                    break
                yield separated, chunk
        except UserError as error:
            yield separated, error


# The size of a batch, and its vocals, which the devices may still be computing.
_Call = tuple[int, concurrent.futures.Future[Any]]

# Starts computing the vocals of at most `batch_size` chunks.
_Submit = Callable[[list[TrackChunk]], _Call]


def _separate(
    items: Iterable[_Item], model: "ChunkSeparator", settings: SamplerSettings
) -> Generator[_Item]:
    """The same items in the same order, the chunks with their vocals."""
    under_way: collections.deque[tuple[list[_Item], list[TrackChunk], _Call]] = collections.deque()
    group: list[_Item] = []
    batch: list[TrackChunk] = []
    with _submitting(model, settings) as submit:
        for track, chunk in items:
            if track._is_abandoned:
                continue
            group.append((track, chunk))
            if isinstance(chunk, TrackChunk) and chunk.mixture is not None:
                batch.append(chunk)
            if len(batch) >= model.batch_size or len(group) >= _LONGEST_WAIT * model.batch_size:
                under_way.append((group, batch, submit(batch)))
                group, batch = [], []
                if len(under_way) == _UNDER_WAY:
                    yield from _results(*under_way.popleft(), model, submit)
        under_way.append((group, batch, submit(batch)))
        while under_way:
            yield from _results(*under_way.popleft(), model, submit)


@contextlib.contextmanager
def _submitting(model: "ChunkSeparator", settings: SamplerSettings) -> Generator[_Submit]:
    """Batches are submitted in a thread, which is not waited for at the end."""
    executor = concurrent.futures.ThreadPoolExecutor(1, "diffsep-submit")

    def submit(chunks: list[TrackChunk]) -> _Call:
        size = model.batch_size
        if not chunks:
            return size, concurrent.futures.Future()
        # A batch that is not full is filled up with zeros, so that one compiled program serves all.
        mixture = np.zeros((size, model.segment, 2), np.float32)
        starts = np.zeros(size, np.int32)
        guesses = None if chunks[0].guess is None else np.zeros_like(mixture)
        for i, chunk in enumerate(chunks):
            mixture[i], starts[i] = chunk.mixture, chunk.position
            if guesses is not None:
                guesses[i] = chunk.guess
        return size, executor.submit(model, mixture, starts, settings, guesses)

    try:
        yield submit
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _results(
    group: list[_Item],
    batch: list[TrackChunk],
    call: _Call,
    model: "ChunkSeparator",
    submit: _Submit,
) -> Iterator[_Item]:
    """The group's items, each chunk with its vocals in place of its mixture and guess."""
    computed = _wait(batch, call, model, submit)
    for track, chunk in group:
        if isinstance(chunk, TrackChunk) and chunk.mixture is not None:
            chunk = chunk._replace(mixture=None, guess=None, vocals=next(computed))
        yield track, chunk


def _wait(
    batch: list[TrackChunk], call: _Call, model: "ChunkSeparator", submit: _Submit
) -> Iterator[Float32[np.ndarray, "segment 2"]]:
    """The vocals of a batch; if memory runs out, computed again in smaller batches.

    Polls, because Ctrl-C does not interrupt JAX's own wait.
    """
    size, submitted = call
    try:
        vocals = submitted.result()
        while not vocals.is_ready():
            time.sleep(_POLL_SECONDS)
        done = np.asarray(vocals)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or not model.lower_batch_size(size):
            raise
    else:
        yield from done
        return
    while batch:
        part, batch = batch[: model.batch_size], batch[model.batch_size :]
        yield from _wait(part, submit(part), model, submit)
