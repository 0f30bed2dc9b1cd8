"""One training example: drawn as a plan of songs, places and changes, then read and rendered.

A plan needs what a source knows of its songs and no audio, so that it can be shown (see `inspect`).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.augment import AugmentConfig, Changes, augment, draw_changes, maybe
from data_pipelines.combined import CombinedSongs
from data_pipelines.dsp import Stereo
from data_pipelines.mastering import MARGIN
from data_pipelines.source import ACTIVITY_BLOCK, Segment, Source, active_blocks

_DRAWS = 1000
"""How often a song is drawn again before one without a voice is taken."""

StartWeights = Float[np.ndarray, "start_block"]


class Place(NamedTuple):
    """Where an example begins in a song, in samples."""

    song: int
    start: int


class Stretch(NamedTuple):
    """How many samples are read for an example, and how many they are after varispeed.

    Attributes:
        segment: samples of the example.
        read: samples of the song.
        made: samples after varispeed: the example's, and a margin at both ends if anything filters.
    """

    segment: int
    read: int
    made: int

    @property
    def margin(self) -> int:
        """Samples before the example."""
        return (self.made - self.segment) // 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamplePlan:
    """All that is drawn for an example.

    Attributes:
        accompaniment: the place of the vocals, or another one by stem remixing.
        layers: accompaniments added to it, with their levels in dB, at most two.
        silent: whether the vocals are set to zero.
        stretch: varispeed of the vocals.
        backing: varispeed of the accompaniment and its layers.
    """

    vocals: Place
    accompaniment: Place
    layers: tuple[tuple[Place, float], ...]
    silent: bool
    stretch: Stretch
    backing: Stretch
    changes: Changes


def draw_plan(
    rng: Generator, source: Source, segment: int, config: AugmentConfig, silent_kept: float
) -> ExamplePlan:
    """Draws an example of `segment` samples; for `silent_kept` see `start_weights`.

    An augmentation that is turned off changes nothing in what the others draw, nor in what songs
    and places are read.
    """
    added, remix = rng.spawn(2)
    silent = bool(added.random() < config.silent_share)
    speed = 1.0 + added.uniform(*config.speed_percent) / 100.0
    remix_speed = 1.0 + remix.uniform(*config.remix_speed_percent) / 100.0
    stretch = stretch_of(segment, config, speed)

    song = _draw_song(rng, source)
    weights = start_weights(source, song, segment, silent_kept)
    if not silent:
        song, weights = _kept_song(added.spawn(1)[0], source, song, weights, segment, silent_kept)
    start = draw_start(rng, source, song, weights, segment)
    vocals = Place(song, _with_voice(source, song, start, stretch))
    other = _draw_anywhere(rng, source, segment)
    # Stem remix: drawn by position, not from the batch, so that hosts need only their own rows.
    remixed = rng.random() < config.remix_probability
    layers = []
    for _ in range(2):
        place = _draw_anywhere(added, source, segment)
        db = maybe(added, config.layer_probability, config.layer_db)
        if db is not None:
            layers.append((place, db))
    return ExamplePlan(
        vocals=vocals,
        accompaniment=other if remixed else vocals,
        layers=tuple(layers),
        silent=silent,
        stretch=stretch,
        backing=stretch_of(segment, config, speed * remix_speed) if remixed else stretch,
        changes=draw_changes(rng, config),
    )


def render(plan: ExamplePlan, source: Source) -> Segment:
    """Reads and changes the stems of an example; the mixture is their sum."""
    stretch = plan.stretch
    stems = _read(source, plan.vocals, stretch)
    gains = [_to_unit_level(source, place.song) for place in (plan.vocals, plan.accompaniment)]
    if (plan.accompaniment, plan.backing) != (plan.vocals, stretch):
        accompaniment = _read(source, plan.accompaniment, plan.backing).accompaniment
        stems = Segment(stems.vocals, accompaniment)
    if plan.silent:
        stems.vocals[:] = 0.0
    if plan.layers:
        _add_layers(plan, source, stems.accompaniment, gains[1])
    stems = augment(stems, plan.changes, source.sample_rate, gains, stretch.made)
    ends = slice(stretch.margin, stretch.margin + stretch.segment)
    return Segment(stems.vocals[ends], stems.accompaniment[ends])


def _draw_song(rng: Generator, source: Source) -> int:
    """Any song; of several data sets, first the data set by its weight."""
    if isinstance(source, CombinedSongs):
        return source.draw(rng)
    return int(rng.integers(len(source)))


def _kept_song(
    rng: Generator, source: Source, song: int, weights: StartWeights, segment: int, kept: float
) -> tuple[int, StartWeights]:
    """The song, with the share of its starts that its weights keep, else a new draw.

    Songs are thus drawn by their sung share: otherwise the one line of a song that has no more
    would return again and again. To draw them directly would need the activity of all songs.
    """
    for _ in range(_DRAWS):
        if rng.random() * (source.num_samples(song) - segment + 1) < weights.sum():
            break
        song = _draw_song(rng, source)
        weights = start_weights(source, song, segment, kept)
    return song, weights


def draw_start(
    rng: Generator, source: Source, song: int, weights: StartWeights, segment: int
) -> int:
    """The start of a segment by the weights of `start_weights`, uniform inside a block.

    Where they keep none, all starts count alike.
    """
    if not weights.any():
        weights = start_weights(source, song, segment, 1.0)
    cumulative = np.cumsum(weights)
    choice, offset = rng.random(2)
    block = int(np.searchsorted(cumulative, choice * cumulative[-1], side="right"))
    first = block * ACTIVITY_BLOCK
    last = min(first + ACTIVITY_BLOCK - 1, source.num_samples(song) - segment)
    return first + int(offset * (last - first + 1))


def start_weights(source: Source, song: int, segment: int, silent_kept: float) -> StartWeights:
    """How many starts in each block of a song are kept.

    Equivalent to drawing starts uniformly and keeping only the share `silent_kept` of those with
    silent vocals: the number of starts in the block, times `silent_kept` if a segment from the
    block's first sample on touches no active block.
    """
    active, num_starts = _active_blocks(source, song), source.num_samples(song) - segment + 1
    first = np.arange(0, num_starts, ACTIVITY_BLOCK)
    starts = np.minimum(ACTIVITY_BLOCK, num_starts - first)
    active_before = np.append(0, np.cumsum(active))
    end_block = np.minimum(-(-(first + segment) // ACTIVITY_BLOCK), len(active))
    sings = active_before[end_block] > active_before[first // ACTIVITY_BLOCK]
    return starts * np.where(sings, 1.0, silent_kept)


def _active_blocks(source: Source, song: int) -> Bool[np.ndarray, "block"]:
    return active_blocks(source.activity(song), source.level(song))


def _draw_anywhere(rng: Generator, source: Source, segment: int) -> Place:
    """Any song and any start in it."""
    song = _draw_song(rng, source)
    return Place(song, int(rng.integers(source.num_samples(song) - segment + 1)))


def stretch_of(segment: int, config: AugmentConfig, speed: float) -> Stretch:
    """Both lengths are rounded up to fast FFT sizes, which changes the speed by about 0.2%."""
    if not config.filters:
        return Stretch(segment, segment, segment)
    made = scipy.fft.next_fast_len(segment + 2 * MARGIN)
    return Stretch(segment, scipy.fft.next_fast_len(round(speed * made)), made)


def _with_voice(source: Source, song: int, start: int, stretch: Stretch) -> int:
    """The start, moved on if a slowed example would end before the voice of its segment."""
    covered = round(stretch.segment * stretch.read / stretch.made)
    if covered >= stretch.segment:
        return start
    blocks = slice(start // ACTIVITY_BLOCK, -(-(start + covered) // ACTIVITY_BLOCK))
    sings = _active_blocks(source, song)[blocks].any()
    return start if sings else start + stretch.segment - covered


def _read(source: Source, place: Place, stretch: Stretch) -> Segment:
    """Stems from the margin before the place on, or from as near as the song's ends allow."""
    first = place.start - round(stretch.margin * stretch.read / stretch.made)
    last = source.num_samples(place.song) - stretch.read
    return source.segment(place.song, min(max(first, 0), last), stretch.read)


def _add_layers(plan: ExamplePlan, source: Source, accompaniment: Stereo, unit: float) -> None:
    """Adds the layers in place and keeps the level; `unit` is the first song's gain to RMS 1."""
    level = dsp.rms(accompaniment)
    for place, db in plan.layers:
        layer = _read(source, place, plan.backing).accompaniment
        layer *= np.float32(dsp.db_to_gain(db) * _to_unit_level(source, place.song) / unit)
        accompaniment += layer
    accompaniment *= np.float32(level / (dsp.rms(accompaniment) or 1.0))


def _to_unit_level(source: Source, song: int) -> float:
    """The gain that brings the whole song's mixture to unit RMS, as in separation.

    Quiet places of a song stay quiet.
    """
    return 1.0 / (source.level(song) or 1.0)
