"""Several data sets as one: all songs are there, drawn by the weights."""

import dataclasses

import numpy as np
import pytest
from ramps import Ramps

from configs.experiment import DataConfig
from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION
from data_pipelines.combined import CombinedSongs
from data_pipelines.source import Source
from diffsep_jax.errors import UserError

FEW, MANY = Ramps(songs=2, loudness=2.0), Ramps(songs=6, active=(3,))
PIPELINE = pipeline.PipelineConfig(batch_size=4, augment=NO_AUGMENTATION)


def combined(weights: tuple[float, ...] | None = None) -> CombinedSongs:
    return CombinedSongs(names=("few", "many"), sources=(FEW, MANY), weights=weights)


def test_every_song_is_there_under_its_own_name():
    songs = combined()
    assert isinstance(songs, Source)
    names = [songs.name(song) for song in range(len(songs))]
    assert names == [f"few/ramp-{i}" for i in range(2)] + [f"many/ramp-{i}" for i in range(6)]
    for song in range(8):
        source, inside = (FEW, song) if song < 2 else (MANY, song - 2)
        for ours, theirs in zip(
            songs.segment(song, 5, 9), source.segment(inside, 5, 9), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(songs.activity(song), source.activity(inside))
        assert songs.level(song) == source.level(inside)
        assert songs.num_samples(song) == source.num_samples(inside)
    for song in (-1, 8):
        with pytest.raises(IndexError, match="8"):
            songs.segment(song, 0, 1)


@pytest.mark.parametrize("weights", [None, (1.0, 1.0), (30.0, 10.0)])
def test_data_sets_are_drawn_by_weight_and_songs_evenly_in_them(weights):
    songs, draws, rng = combined(weights), 4000, np.random.default_rng(0)
    counts = np.bincount([songs.draw(rng) for _ in range(draws)], minlength=8)
    few, many = weights or (2.0, 6.0)
    shares = np.repeat([few / 2, many / 6], [2, 6]) / (few + many)
    deviation = np.sqrt(draws * shares * (1 - shares))
    assert (np.abs(counts - draws * shares) <= 5 * deviation).all()


def test_the_pipeline_draws_by_the_weights():
    """The few songs are at level 2: their band, brought to unit level, is under 2."""
    data = pipeline.batches(combined((1.0, 1e-9)), PIPELINE, segment=1000)
    for step in range(5):
        batch = data[step]
        assert (np.abs(batch["mixture"] - batch["vocals"]) < 2.0).all()


def test_what_cannot_be_combined_is_refused():
    slow = dataclasses.replace(MANY, sample_rate=48000)
    with pytest.raises(
        UserError, match=r"^b: sample rate is 48000 Hz; expected 44100 Hz, as in a$"
    ):
        CombinedSongs(names=("a", "b"), sources=(FEW, slow))
    with pytest.raises(UserError, match="source is a a; expected data sets, each once"):
        CombinedSongs(names=("a", "a"), sources=(FEW, MANY))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), (), (1.0, 0.0), (1.0, np.inf)])
def test_weights_are_one_positive_number_for_each_data_set(weights):
    with pytest.raises(UserError, match="2 data sets \\(A, B\\)"):
        DataConfig(source=("A", "B"), weights=weights, pipeline=PIPELINE)
    with pytest.raises(UserError, match="2 data sets \\(few, many\\)"):
        combined(weights)
