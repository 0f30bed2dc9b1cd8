"""Choice of the songs and places that an example is made of, and how they are read."""

from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.augment import AugmentConfig, drawn
from data_pipelines.combined import CombinedSongs
from data_pipelines.mastering import MARGIN
from data_pipelines.source import ACTIVITY_BLOCK, Segment, Source, active_blocks


def draw_song(rng: Generator, source: Source) -> int:
    """Any song; of several data sets, first the data set by its weight."""
    if isinstance(source, CombinedSongs):
        return source.draw(rng)
    return int(rng.integers(len(source)))


def singing_song(rng: Generator, source: Source, song: int) -> int:
    """The song if it has a voice, else a new draw; any song after a thousand draws.

    Drawing among the songs with a voice directly would need the activity of all songs.
    """
    for _ in range(1000):
        if active_blocks(source.activity(song)).any():
            break
        song = draw_song(rng, source)
    return song


def draw_start(rng: Generator, source: Source, song: int, segment: int, silent_kept: float) -> int:
    """The start of a segment; `start_weights` says where, uniform inside a block."""
    weights = start_weights(source.activity(song), source.num_samples(song), segment, silent_kept)
    cumulative = np.cumsum(weights)
    choice, offset = rng.random(2)
    block = int(np.searchsorted(cumulative, choice * cumulative[-1], side="right"))
    first = block * ACTIVITY_BLOCK
    last = min(first + ACTIVITY_BLOCK - 1, source.num_samples(song) - segment)
    return first + int(offset * (last - first + 1))


def start_weights(
    activity: Float[np.ndarray, "block"], num_samples: int, segment: int, silent_kept: float
) -> Float[np.ndarray, "start_block"]:
    """How often a segment starts in each block of a song, up to a factor.

    Equivalent to drawing starts uniformly and keeping only the share `silent_kept` of those with
    silent vocals: the number of starts in the block, times `silent_kept` if a segment from the
    block's first sample on touches no active block. If none does, all starts count alike, so that
    how often a song is drawn does not depend on its vocals.
    """
    first = np.arange(0, num_samples - segment + 1, ACTIVITY_BLOCK)
    starts = np.minimum(ACTIVITY_BLOCK, num_samples - segment + 1 - first)
    active_before = np.append(0, np.cumsum(active_blocks(activity)))
    end_block = np.minimum(-(-(first + segment) // ACTIVITY_BLOCK), len(activity))
    sings = active_before[end_block] > active_before[first // ACTIVITY_BLOCK]
    return starts * np.where(sings, 1.0, silent_kept if sings.any() else 1.0)


def draw_anywhere(rng: Generator, source: Source, segment: int) -> tuple[int, int]:
    """Any song and any start in it."""
    song = draw_song(rng, source)
    return song, int(rng.integers(source.num_samples(song) - segment + 1))


class Stretch(NamedTuple):
    """How many samples are read for an example, and how many varispeed makes of them."""

    segment: int
    """Samples of the example."""
    read: int
    made: int
    """The example's samples, and a margin at both ends if anything filters."""

    @property
    def margin(self) -> int:
        """Samples before the example."""
        return (self.made - self.segment) // 2


def stretch_of(segment: int, augmentation: AugmentConfig, speed: float) -> Stretch:
    """Both lengths are rounded up to fast FFT sizes, which changes the speed by about 0.2%."""
    if not augmentation.filters:
        return Stretch(segment, segment, segment)
    made = scipy.fft.next_fast_len(segment + 2 * MARGIN)
    return Stretch(segment, scipy.fft.next_fast_len(round(speed * made)), made)


def with_voice(source: Source, song: int, start: int, stretch: Stretch) -> int:
    """The start, moved on if a slowed example would end before the voice of its segment."""
    covered = round(stretch.segment * stretch.read / stretch.made)
    if covered >= stretch.segment:
        return start
    blocks = slice(start // ACTIVITY_BLOCK, -(-(start + covered) // ACTIVITY_BLOCK))
    sings = active_blocks(source.activity(song))[blocks].any()
    return start if sings else start + stretch.segment - covered


def read_stretch(source: Source, song: int, start: int, stretch: Stretch) -> Segment:
    """Stems from the margin before `start` on, or from as near as the song's ends allow."""
    first = start - round(stretch.margin * stretch.read / stretch.made)
    last = source.num_samples(song) - stretch.read
    return source.segment(song, min(max(first, 0), last), stretch.read)


def add_layers(
    rng: Generator,
    source: Source,
    accompaniment: Float[np.ndarray, "time 2"],
    unit: float,
    config: AugmentConfig,
    stretch: Stretch,
) -> None:
    """Adds up to two songs' accompaniments in place; `unit` is the first song's gain to RMS 1."""
    layers = []
    for _ in range(2):
        song, start = draw_anywhere(rng, source, stretch.segment)
        db = drawn(rng, config.layer_probability, config.layer_db)
        if db is not None:
            layers.append((song, start, db))
    if not layers:
        return
    level = dsp.rms(accompaniment)
    for song, start, db in layers:
        layer = read_stretch(source, song, start, stretch).accompaniment
        layer *= np.float32(dsp.db_to_gain(db) * to_unit_level(source, song) / unit)
        accompaniment += layer
    accompaniment *= np.float32(level / (dsp.rms(accompaniment) or 1.0))


def to_unit_level(source: Source, song: int) -> float:
    """The gain that brings the whole song's mixture to unit RMS, as in separation.

    Quiet places of a song stay quiet.
    """
    return 1.0 / (source.level(song) or 1.0)
