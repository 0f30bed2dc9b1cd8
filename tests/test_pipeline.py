"""Batches by position: resumable, the same for any number of hosts, always a sum of two stems."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from ramps import BLOCKS, Broken, Ramps, example

import configs
from data_pipelines import examples, pipeline
from data_pipelines.augment import NO_AUGMENTATION
from data_pipelines.builders.builder import BuildConfig, RecordsBuilder
from data_pipelines.source import ACTIVITY_BLOCK, active_blocks, mixture_rms
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError

CONFIG = pipeline.PipelineConfig(batch_size=8, seed=1, num_threads=2, prefetch=2)
PLAIN = dataclasses.replace(CONFIG, augment=NO_AUGMENTATION)
RECIPE = dataclasses.replace(
    CONFIG, silent_kept=0.0, augment=configs.get("small").data.pipeline.augment
)


def batches(source, config, segment=8192, **hosts):
    return pipeline.batches(source, config, segment=segment, **hosts)


def assert_same(left, right):
    assert left.keys() == right.keys() == {"mixture", "vocals"}
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def test_position_alone_decides():
    data = batches(Ramps(), RECIPE)
    tail = data[5:]
    for i in range(3):
        assert_same(tail[i], data[i + 5])
        assert_same(batches(Ramps(), RECIPE)[i], data[i])
    assert not np.array_equal(data[0]["mixture"], data[1]["mixture"])
    other = batches(Ramps(), dataclasses.replace(RECIPE, seed=2))
    assert not np.array_equal(data[0]["mixture"], other[0]["mixture"])


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_users_one_line():
    config = dataclasses.replace(PLAIN, num_workers=1)
    iterator = pipeline.iterate(batches(Broken(), config), 0, config)
    try:
        with pytest.raises(UserError) as caught:
            next(iterator)
        assert str(caught.value) == "a song: damaged"
    finally:
        iterator.close()
    assert not multiprocessing.active_children()


PARENT = """
import multiprocessing, time
import absl.flags
from ramps import Ramps
from data_pipelines import pipeline

absl.flags.FLAGS.mark_as_parsed()
config = pipeline.PipelineConfig(batch_size=2, num_workers=2, prefetch=2)
iterator = pipeline.iterate(pipeline.batches(Ramps(), config, segment=8192), 0, config)
next(iterator), next(iterator)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
print(sum(1 for _ in zip(range(20), iterator)), "batches", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc").is_dir(), reason="finds the workers in /proc, which is Linux' own"
)
def test_workers_end_with_a_killed_parent_and_not_by_its_signals():
    """Ctrl-C and a scheduler's SIGTERM reach the workers too: the parent still gets its batches."""
    tests = pathlib.Path(__file__).parent
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    try:
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        assert parent.stdout.readline() == "20 batches\n"
        parent.kill()
        deadline = time.monotonic() + 20
        while any(runs(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for pid in filter(runs, [parent.pid, *workers]):
            os.kill(pid, signal.SIGKILL)
        parent.communicate()


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_share_one_global_batch(hosts: int):
    whole = batches(Ramps(), RECIPE)[3]
    parts = [
        batches(Ramps(), RECIPE, rows=range(host, RECIPE.batch_size, hosts))[3]
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


@pytest.mark.parametrize("segment", [8192, 3000, 100_000, BLOCKS * ACTIVITY_BLOCK])
def test_silent_vocals_are_kept_as_if_the_others_of_them_had_been_dropped(segment: int):
    """The law of the starts is that of uniform ones, of which some with silent vocals go."""
    kept = 0.25
    source = Ramps(songs=1)
    weights = examples.start_weights(source, 0, segment, silent_kept=kept)
    expected = np.zeros(len(weights))
    for start in range(source.num_samples(0) - segment + 1):
        block = start // ACTIVITY_BLOCK
        touched = range(block, -(-(block * ACTIVITY_BLOCK + segment) // ACTIVITY_BLOCK))
        expected[block] += 1.0 if set(touched) & set(source.active) else kept
    np.testing.assert_allclose(weights, expected)


def test_starts_follow_the_weights():
    """Drawn blocks against the exact shares, five standard deviations; offsets are uniform."""
    source, segment, draws = Ramps(songs=1), 8192, 4000
    weights = examples.start_weights(source, 0, segment, 0.05)
    shares = weights / weights.sum()
    rng = np.random.default_rng(0)
    starts = np.array([examples.draw_start(rng, source, 0, weights, segment) for _ in range(draws)])
    assert starts.max() <= source.num_samples(0) - segment
    counts = np.bincount(starts // ACTIVITY_BLOCK, minlength=len(shares))
    deviation = np.sqrt(draws * shares * (1 - shares))
    assert (np.abs(counts - draws * shares) <= 5 * deviation).all()
    offsets = starts % ACTIVITY_BLOCK / ACTIVITY_BLOCK
    assert offsets.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / draws))
    assert offsets.std() == pytest.approx(np.sqrt(1 / 12), abs=0.02)


def test_where_a_song_may_start_is_computed_once(monkeypatch):
    """It takes all blocks of a song. No song is drawn again where silence is kept."""
    calls, compute = [], examples.start_weights
    monkeypatch.setattr(examples, "start_weights", lambda *a: calls.append(1) or compute(*a))
    examples.draw_plan(np.random.default_rng(0), Ramps(), 8192, NO_AUGMENTATION, 1.0)
    assert len(calls) == 1


@dataclasses.dataclass(frozen=True)
class Mostly(Ramps):
    """Only the first of the songs has a voice."""

    def segment(self, song: int, start: int, length: int):
        stems = super().segment(song, start, length)
        return stems._replace(vocals=stems.vocals * np.float32(song == 0))

    def activity(self, song: int):
        return super().activity(song) * np.float32(song == 0)


@pytest.mark.parametrize(
    ("share", "remix", "segment"), [(0.2, 0.0, 100), (0.2, 1.0, 5000), (1.0, 0.5, 100)]
)
def test_silent_examples_have_the_exact_share_whatever_the_songs(share, remix, segment):
    """Also where most songs have no voice, and where examples are slowed down."""
    augmentation = dataclasses.replace(
        NO_AUGMENTATION,
        silent_share=share,
        remix_probability=remix,
        speed_percent=(-30.0, 30.0),
    )
    config = dataclasses.replace(RECIPE, augment=augmentation)
    for source in (Ramps(), Mostly()):
        drawn = [example(source, config, segment, index) for index in range(400)]
        silent = np.mean([not each["vocals"].any() for each in drawn])
        assert silent == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 400))
        assert all(each["mixture"].any() for each in drawn)


@dataclasses.dataclass(frozen=True)
class Halves(Ramps):
    """The first song has a voice throughout, the second in half of it."""

    def activity(self, song: int):
        sings = np.arange(BLOCKS) < (BLOCKS if song == 0 else BLOCKS // 2)
        return sings.astype(np.float32)


@pytest.mark.parametrize("silent_kept", [0.0, 0.5])
def test_songs_are_drawn_by_their_sung_share(silent_kept: float):
    """As if examples were drawn from all songs alike, and silent ones dropped then."""
    source, segment, draws = Halves(songs=2), 100, 2000
    plans = [
        examples.draw_plan(np.random.default_rng(i), source, segment, NO_AUGMENTATION, silent_kept)
        for i in range(draws)
    ]
    kept = 0.5 + 0.5 * silent_kept  # of the second song's starts
    share = kept / (1 + kept)
    drawn = np.mean([plan.vocals.song for plan in plans])
    assert drawn == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / draws) + 0.01)


def test_a_stem_of_dither_is_silent():
    """Though it has a loudest block, and most of the others are near it."""
    dither = np.full(BLOCKS, 5e-4, np.float32)
    assert not active_blocks(dither, 1.0).any()
    assert active_blocks(dither, 0.1).all()


@pytest.mark.parametrize("config", [PLAIN, RECIPE])
def test_songs_without_voice_are_no_endless_search(config):
    assert not batches(Ramps(active=()), config, segment=1000)[0]["vocals"].any()


@pytest.mark.parametrize("percent", [-40.0, -6.0, 6.0])
def test_a_segment_with_voice_keeps_it_at_any_speed(percent: float):
    augmentation = dataclasses.replace(NO_AUGMENTATION, speed_percent=(percent, percent))
    config = dataclasses.replace(PLAIN, silent_kept=0.0, augment=augmentation)
    for index in range(200):
        assert example(Ramps(), config, 8192, index)["vocals"].any()


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


@pytest.mark.parametrize(
    "fields",
    [
        {"prefetch": 0},
        {"batch_size": -1},
        {"silent_kept": 1.5},
        {"num_threads": 0},
        {"num_workers": -1},
    ],
)
def test_bad_pipeline_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        dataclasses.replace(CONFIG, **fields)


def test_only_one_field_says_how_often_vocals_are_silent():
    with pytest.raises(UserError, match=r"silent_kept is 0\.1 and augment\.silent_share is 0\.2"):
        dataclasses.replace(RECIPE, silent_kept=0.1)


def test_songs_that_are_too_short_are_refused_by_name():
    with pytest.raises(UserError, match="ramp-0 has 163840 samples, fewer than the segment of"):
        batches(Ramps(), CONFIG, segment=10**6)
    length = Ramps().num_samples(0)
    batches(Ramps(), CONFIG, segment=length)
    # Played faster, and with a margin for filters, an example takes more of the song.
    with pytest.raises(UserError, match=f"segment of {length}, for which up to 239[0-9]* are"):
        batches(Ramps(), RECIPE, segment=length)


def test_the_level_of_a_song_is_its_mixtures_rms():
    source = Ramps()
    mixture = sum(source.segment(1, 0, source.num_samples(1)))
    assert mixture_rms(source, 1) == pytest.approx(np.sqrt(np.mean(mixture.astype(float) ** 2)))


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_real_files_give_the_same_batches_however_they_are_prepared(tmp_path, kind):
    """With threads and with workers and after a restart; closed, no process stays."""
    rng = np.random.default_rng(0)
    for song, stem in itertools.product(range(3), ("vocals", "drums")):
        path = tmp_path / "songs" / f"song {song}" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal((60_000, 2)), 44_100)
    spec = tmp_path / "songs"
    if kind == "records":
        fields = {"record_samples": 2**14, "min_samples": 2**13}
        build = BuildConfig(layout="stems", source=spec, **fields)
        builder = RecordsBuilder(build, data_dir=str(tmp_path / "built"))
        builder.build()
        spec = builder.folder
    source = open_source(str(spec), cache_dir=str(tmp_path / "cache"))
    dataset = batches(source, RECIPE)
    expected = [dataset[step] for step in range(5)]
    for workers, start in ((0, 3), (2, 0)):
        config = dataclasses.replace(RECIPE, num_workers=workers)
        with contextlib.closing(pipeline.iterate(dataset, start, config)) as iterator:
            for step in range(start, 5):
                assert_same(next(iterator), expected[step])
            assert len(multiprocessing.active_children()) == workers
        assert not multiprocessing.active_children()


def test_shared_memory_that_is_too_small_for_the_workers_is_named(monkeypatch):
    config = dataclasses.replace(PLAIN, num_workers=2)
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    for free, is_enough in ((8 * 8 * 8192 * 16, True), (8 * 8 * 8192 * 16 - 1, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        expected = contextlib.nullcontext() if is_enough else pytest.raises(UserError, match="shm")
        with expected:
            batches(Ramps(), config)
        batches(Ramps(), PLAIN)  # threads need none
