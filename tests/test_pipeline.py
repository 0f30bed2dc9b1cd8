"""Batches by position: resumable, the same for any number of hosts, always a sum of two stems."""

import dataclasses

import numpy as np
import pytest
from jaxtyping import Float

from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig, augment
from data_pipelines.segments import ACTIVITY_BLOCK, Segment, block_rms, check_range, mixture_rms
from diffsep_jax.errors import UserError

BLOCKS = 40


@dataclasses.dataclass(frozen=True)
class Ramps:
    """Songs that say where each sample comes from; the voice sings in a few blocks only."""

    songs: int = 5
    active: tuple[int, ...] = (7, 8, 30)
    loudness: float = 1.0
    sample_rate: int = 44100

    def __len__(self) -> int:
        return self.songs

    def name(self, song: int) -> str:
        return f"ramp-{song}"

    def num_samples(self, song: int) -> int:
        return BLOCKS * ACTIVITY_BLOCK

    def segment(self, song: int, start: int, length: int) -> Segment:
        check_range(self.name(song), start, length, self.num_samples(song))
        position = np.arange(start, start + length)
        sings = np.isin(position // ACTIVITY_BLOCK, self.active)
        vocals = np.where(sings, 0.25, 0.0)
        band = 1.0 + song + position / self.num_samples(song) / 2
        return Segment(
            vocals=np.stack([vocals, 2 * vocals], axis=1).astype(np.float32),
            accompaniment=np.stack([band, -band], axis=1).astype(np.float32),
        )

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        return block_rms(self.segment(song, 0, self.num_samples(song)).vocals)

    def level(self, song: int) -> float:
        return self.loudness


CONFIG = pipeline.PipelineConfig(batch_size=8, seed=1, num_threads=2, prefetch=2)
PLAIN = dataclasses.replace(CONFIG, augment=NO_AUGMENTATION)


def batches(source, config, segment=8192, **hosts):
    return pipeline.batches(source, config, segment=segment, **hosts)


def assert_same(left, right):
    assert left.keys() == right.keys() == {"mixture", "vocals"}
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def test_batch_shape_and_type():
    batch = batches(Ramps(), CONFIG)[0]
    for value in batch.values():
        assert value.shape == (8, 8192, 2)
        assert value.dtype == np.float32


def test_position_alone_decides():
    data = batches(Ramps(), CONFIG)
    tail = data[5:]
    for i in range(3):
        assert_same(tail[i], data[i + 5])
        assert_same(batches(Ramps(), CONFIG)[i], data[i])
    assert not np.array_equal(data[0]["mixture"], data[1]["mixture"])
    other = batches(Ramps(), dataclasses.replace(CONFIG, seed=2))
    assert not np.array_equal(data[0]["mixture"], other[0]["mixture"])


def test_iterate_starts_at_a_step():
    data = batches(Ramps(), CONFIG)
    iterator = pipeline.iterate(data, 3, CONFIG)
    try:
        for step in range(3, 6):
            assert_same(next(iterator), data[step])
    finally:
        iterator.close()


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_share_one_global_batch(hosts: int):
    whole = batches(Ramps(), CONFIG)[3]
    parts = [
        batches(Ramps(), CONFIG, rows=range(host, CONFIG.batch_size, hosts))[3]
        for host in range(hosts)
    ]
    joined = {
        key: np.stack([part[key] for part in parts], 1).reshape(whole[key].shape) for key in whole
    }
    assert_same(joined, whole)


def test_without_augmentation_the_source_comes_through():
    """The band's ramp names song and position; the vocals are the source's there, to the bit."""
    source = Ramps()
    batch = batches(source, PLAIN)[0]
    for mixture, vocals in zip(batch["mixture"], batch["vocals"], strict=True):
        band = mixture[0] - vocals[0]
        song = int(band[0] - 1.0)
        start = round(float(band[0] - 1.0 - song) * 2 * source.num_samples(song))
        expected = source.segment(song, start, len(vocals))
        np.testing.assert_array_equal(vocals, expected.vocals)
        np.testing.assert_array_equal(mixture, expected.vocals + expected.accompaniment)


@pytest.mark.parametrize("loudness", [0.0, 4.0])
def test_a_song_has_one_gain_everywhere_by_its_own_level(loudness: float):
    """Quiet places stay quiet, as in separation; a silent song is left as it is."""
    plain, scaled = (batches(Ramps(loudness=x), PLAIN)[0] for x in (1.0, loudness))
    for name in plain:
        np.testing.assert_array_equal(scaled[name], plain[name] / (loudness or 1.0))


def test_segments_hold_active_vocals():
    data = batches(Ramps(), dataclasses.replace(PLAIN, anywhere_share=0.0))
    assert all((np.abs(data[i]["vocals"]).max(axis=(1, 2)) > 0).all() for i in range(10))
    anywhere = batches(Ramps(), dataclasses.replace(PLAIN, anywhere_share=1.0))
    silent = [(np.abs(anywhere[i]["vocals"]).max(axis=(1, 2)) == 0).mean() for i in range(10)]
    assert 0.5 < np.mean(silent) < 1.0


def test_songs_without_voice_are_drawn_anywhere():
    batch = batches(Ramps(active=()), PLAIN)[0]
    assert np.abs(batch["vocals"]).max() == 0


def test_remix_takes_the_band_from_elsewhere():
    config = dataclasses.replace(
        PLAIN, augment=dataclasses.replace(NO_AUGMENTATION, remix_probability=1.0)
    )
    mixed = batches(Ramps(), config)[0]
    plain = batches(Ramps(), PLAIN)[0]
    np.testing.assert_array_equal(mixed["vocals"], plain["vocals"])
    bands = [x["mixture"] - x["vocals"] for x in (mixed, plain)]
    assert not np.array_equal(*bands)
    slope = np.diff(bands[0][:, :, 0], axis=1)
    assert (slope >= 0).all()  # still one stretch of one song


def test_every_augmentation_keeps_the_stems_apart():
    """Each stem is the source's, up to a sign, an order of channels and a gain in range."""
    config = AugmentConfig(gain_db=(-6.0, 2.0))
    rng = np.random.default_rng(0)
    stem = rng.standard_normal((100, 2)).astype(np.float32)
    seen = set()
    for seed in range(60):
        pair = augment(np.random.default_rng(seed), Segment(stem, stem), config)
        kinds = []
        for changed in pair:
            flipped = abs(np.corrcoef(changed[:, 0], stem[:, 1])[0, 1]) > 0.9
            original = stem[:, ::-1] if flipped else stem
            gain = changed[0, 0] / original[0, 0]
            np.testing.assert_allclose(changed, original * gain, rtol=1e-5)
            assert -6.001 <= 20 * np.log10(abs(gain)) <= 2.001
            kinds.append((flipped, bool(gain < 0)))
        seen.add(tuple(kinds))
    assert len(seen) == 16  # flips and signs are drawn for each stem on its own


def test_augmentations_are_off_at_zero():
    stem = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    for changed in augment(np.random.default_rng(1), Segment(stem, stem), NO_AUGMENTATION):
        np.testing.assert_array_equal(changed, stem)


@pytest.mark.parametrize(
    "fields", [{"prefetch": 0}, {"batch_size": -1}, {"anywhere_share": 1.5}, {"num_threads": 0}]
)
def test_bad_pipeline_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        dataclasses.replace(CONFIG, **fields)


@pytest.mark.parametrize(
    "fields", [{"polarity_probability": -0.1}, {"gain_db": (3.0, -3.0)}, {"remix_probability": 2.0}]
)
def test_bad_augmentation_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        AugmentConfig(**fields)


def test_batches_refuse_what_cannot_be():
    with pytest.raises(UserError, match="ramp-0"):
        batches(Ramps(), CONFIG, segment=10**6)


def test_the_level_of_a_song_is_its_mixtures_rms():
    source = Ramps()
    mixture = sum(source.segment(1, 0, source.num_samples(1)))
    assert mixture_rms(source, 1) == pytest.approx(np.sqrt(np.mean(mixture.astype(float) ** 2)))
