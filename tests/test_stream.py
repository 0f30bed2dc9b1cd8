"""Many tracks in one pass: read ahead, batches across tracks, results as one by one."""

import contextlib
import dataclasses
import math
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from halving import Chunks

from diffsep_jax.audio.read import AudioArray
from diffsep_jax.errors import UserError
from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.settings import PAPER
from diffsep_jax.inference.stream import read_ahead, separate_tracks
from diffsep_jax.inference.track import measure

RATE = 44_100
SEGMENT = 1000


class Source(AudioArray):
    """Audio that breaks after some blocks when it is read for the second time."""

    breaks = False

    def blocks(self):
        yield from super().blocks()
        if self.breaks:
            raise UserError(f"{self.name}: the disk is gone")


def noise(num_frames, seed=0, num_channels=2):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (num_frames, num_channels)).astype(np.float32)


class Model:
    """Turns chunks by their position, and counts its calls."""

    def __init__(self, batch_size):
        self.calls: list[int] = []
        self.chunks = Chunks(self, SEGMENT, batch_size=batch_size)

    def __call__(self, mixture, starts):
        assert len(mixture) == len(starts) == self.chunks.batch_size
        self.calls.append(int(mixture.any(axis=(1, 2)).sum()))
        return mixture * np.cos(starts, dtype=np.float32)[:, None, None]


def opener(audio, name="song", *, breaks=False):
    def open_():
        source = Source(audio, RATE, name)
        track = measure(source)
        object.__setattr__(source, "breaks", breaks)
        return track, None

    return open_


def opener_of(kind, audio):
    """A track that is measured as usual, and is of another kind when it is read."""
    track = dataclasses.replace(measure(AudioArray(audio, RATE)), source=kind(audio, RATE))
    return lambda: (track, None)


def threads_end(before):
    """Whether there are soon as many threads as before."""
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() <= before


def refuse():
    raise UserError("gone.wav: No such file")


def take(tracks):
    """The stems of each track, or why there are none."""
    results = []
    for separated in tracks:
        try:
            blocks = list(separated.blocks())
        except UserError as error:
            results.append(str(error))
        else:
            results.append([np.concatenate(stem) for stem in zip(*blocks, strict=True)])
    return results


LENGTHS = (12_345, 1, 3000, 999, 5001)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_as_one_by_one_and_in_full_batches(batch_size):
    audio = [noise(length, seed) for seed, length in enumerate(LENGTHS)]
    together, alone = Model(batch_size), Model(1)
    results = take(
        separate_tracks([opener(each) for each in audio], together.chunks, PAPER, overlap=0.2)
    )
    for each, result in zip(audio, results, strict=True):
        [expected] = take(separate_tracks([opener(each)], alone.chunks, PAPER, overlap=0.2))
        for stem, expected_stem in zip(result, expected, strict=True):
            assert np.array_equal(stem, expected_stem)
    assert len(together.calls) == math.ceil(len(alone.calls) / batch_size)
    assert together.calls[:-1] == [batch_size] * (len(together.calls) - 1)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_bad_tracks_are_reported_and_the_others_go_on(batch_size):
    openers = [
        opener(noise(5000)),
        refuse,
        opener(noise(70_000), "broken", breaks=True),
        opener(noise(2000)),
    ]
    model = Model(batch_size)
    first, second, third, fourth = take(separate_tracks(openers, model.chunks, PAPER, overlap=0.2))
    assert second == "gone.wav: No such file"
    assert third == "broken: the disk is gone"
    for stems, length in ((first, 5000), (fourth, 2000)):
        assert [len(stem) for stem in stems] == [length, length]


def test_a_track_that_is_left_is_neither_read_nor_computed_further():
    read = []

    class Counted(AudioArray):
        def blocks(self):
            for block in super().blocks():
                read.append(len(block))
                yield block

    long = 2000 * SEGMENT
    openers = [opener_of(Counted, noise(long)), opener(noise(3 * SEGMENT, 1))]
    model = Model(2)
    tracks = separate_tracks(openers, model.chunks, PAPER, overlap=0.0)
    next(next(tracks).blocks())
    np.testing.assert_equal(
        take(tracks), take(separate_tracks(openers[1:], Model(2).chunks, PAPER, overlap=0.0))
    )
    assert len(model.calls) < 200
    assert 0 < sum(read) < long / 2


def test_tracks_are_read_ahead_within_bounds():
    """While one is taken, the next are read: as many chunks as a few batches have, and no more."""
    opened, read = [], []

    class Counted(AudioArray):
        def blocks(self):
            for block in super().blocks():
                read.append(len(block))
                yield block

    def openers():
        for index in range(20):
            opened.append(index)
            yield opener_of(Counted, noise(10 * SEGMENT, index))

    with contextlib.closing(
        separate_tracks(openers(), Model(2).chunks, PAPER, overlap=0.0)
    ) as tracks:
        next(next(tracks).blocks())
        time.sleep(0.3)
        assert 1 < len(opened) < 5
        assert 2 <= len(read) < 5


def test_leaving_does_not_wait_for_a_reader_that_waits():
    before = threading.active_count()
    disk, waits = threading.Event(), threading.Event()

    class Slow(AudioArray):
        def blocks(self):
            yield self.audio[: 4 * SEGMENT]
            waits.set()
            disk.wait(60)
            yield self.audio[4 * SEGMENT :]

    tracks = separate_tracks(
        [opener_of(Slow, noise(9 * SEGMENT))], Model(1).chunks, PAPER, overlap=0.0
    )
    next(next(tracks).blocks())
    assert waits.wait(20)
    start = time.monotonic()
    tracks.close()
    assert time.monotonic() - start < 1
    disk.set()
    assert threads_end(before)


@pytest.mark.parametrize("depth", [1, 3])
def test_reading_ahead_keeps_items_errors_and_their_order(depth):
    before = threading.active_count()
    computed = []

    def items():
        for i in range(20):
            computed.append(i)
            yield i
        raise ValueError("broken")

    ahead = read_ahead(items(), depth)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert len(computed) == 1 + depth
    assert [next(ahead) for _ in range(19)] == list(range(1, 20))
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
    assert threads_end(before)


def test_reading_begins_before_the_first_track_is_asked_for():
    """And ends, where none ever is, with the last reference to the tracks."""
    before, opened = threading.active_count(), threading.Event()

    def openers():
        opened.set()
        while True:
            yield opener(noise(10 * SEGMENT))

    tracks = separate_tracks(openers(), Model(2).chunks, PAPER, overlap=0.0)
    assert opened.wait(10)
    assert threading.active_count() == before + 1
    del tracks
    assert threads_end(before)


def test_long_silence_does_not_hold_up_what_sounds():
    """Nor is it kept in memory until a batch is full."""
    audio = np.concatenate([noise(SEGMENT), np.zeros((200 * SEGMENT, 2), np.float32)])
    seen: list[int] = []
    model = Model(2)
    tracks = separate_tracks(
        [opener(np.concatenate([audio, audio]))], model.chunks, PAPER, overlap=0.0
    )
    blocks = next(tracks).blocks(lambda done, total: seen.append(len(model.calls)))
    vocals = np.concatenate([vocals for vocals, _ in blocks])
    assert model.calls == [1, 1]
    assert seen[3] == 1  # the first chunk is done long before the second that sounds is read
    assert not vocals[SEGMENT : 201 * SEGMENT].any()


def test_errors_of_the_program_are_raised_and_no_thread_stays():
    before = threading.active_count()

    def broken(mixture, starts):
        raise RuntimeError("out of memory")

    model = Chunks(broken, SEGMENT, batch_size=2)
    with pytest.raises(RuntimeError, match="out of memory"):
        take(separate_tracks([opener(noise(5000))], model, PAPER, overlap=0.2))
    tracks = separate_tracks([opener(noise(500_000))], Model(2).chunks, PAPER, overlap=0.2)
    next(next(tracks).blocks())
    tracks.close()
    assert threads_end(before)


class ShortOfMemory(Model):
    """Has memory for `enough` chunks; the want of it shows on calling or on reading."""

    lower_batch_size = ChunkSeparator.lower_batch_size
    _mesh = types.SimpleNamespace(size=1)
    segment, sample_rate, stride, target_rms = SEGMENT, RATE, 1, 1.0

    def __init__(self, batch_size, enough, shows_on):
        self.batch_size, self.enough, self.shows_on = batch_size, enough, shows_on
        self.chunks, self.calls = self, []

    def __call__(self, mixture, starts, settings, guess):
        if len(mixture) <= self.enough:
            return jnp.asarray(super().__call__(mixture, starts))
        error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
        if self.shows_on == "calling":
            raise error
        return FailedArray(error)


@dataclasses.dataclass
class FailedArray:
    error: Exception

    def is_ready(self):
        return True

    def __array__(self, *_, **__):
        raise self.error


@pytest.mark.parametrize("shows_on", ["calling", "reading"])
@pytest.mark.parametrize(("enough", "left"), [(1, 1), (3, 2), (5, 4)])
def test_batches_are_halved_where_memory_is_short(shows_on, enough, left, caplog):
    audio = [noise(length, seed) for seed, length in enumerate(LENGTHS)]
    openers = [opener(each) for each in audio]
    model = ShortOfMemory(8, enough, shows_on)
    results = take(separate_tracks(openers, model, PAPER, overlap=0.2))
    assert model.batch_size == left
    assert len(caplog.messages) == int(math.log2(8 / left))
    expected = take(separate_tracks(openers, Model(1).chunks, PAPER, overlap=0.2))
    for result, other in zip(results, expected, strict=True):
        assert np.array_equal(result, other)


def test_no_memory_for_one_chunk_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        take(
            separate_tracks(
                [opener(noise(9000))], ShortOfMemory(4, 0, "reading"), PAPER, overlap=0.0
            )
        )
