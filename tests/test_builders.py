"""Data sets of records from every layout: what is stored, read back, and left out."""

import itertools
import shutil
import signal

import numpy as np
import pytest
import tensorflow_datasets as tfds
from recordings import (
    MUSDB_STEMS,
    RATE,
    SMALL,
    built,
    noise,
    songs,
    whole,
    write,
    write_musdb18hq_song,
)

from data_pipelines import build
from data_pipelines.builders.shards import write_shard
from data_pipelines.embedded import excerpt
from data_pipelines.sources import open_source
from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import PreemptedError, UserError
from diffsep_jax.lock import only_run


def build_hq(root, out="out", **options):
    """The command for the songs of MUSDB18-HQ in `root`/hq."""
    options = SMALL | options
    return build.Build(layout="musdb18hq", source=root / "hq", out=root / out, **options)


def assert_stems(source, song, vocals, accompaniment, tolerance=0.0):
    """Everywhere, in segments of every length up to the overlap and beyond."""
    rng = np.random.default_rng(0)
    for length in (1, 1000, 2**13, 20_000):
        for start in (0, *rng.integers(0, len(vocals) - length, 5), len(vocals) - length):
            got = source.segment(song, int(start), length)
            for stem, expected in zip(got, (vocals, accompaniment), strict=True):
                assert stem.dtype == np.float32
                expected = expected[start : start + length]
                np.testing.assert_allclose(stem, expected, rtol=0, atol=tolerance)


def test_musdb18hq_comes_back_to_the_bit(tmp_path):
    names = ["Ünï ç çødé & <spaces>", "ANiMAL - Rockshow"]
    stems = {name: write_musdb18hq_song(tmp_path / "hq/train" / name) for name in names}
    write_musdb18hq_song(tmp_path / "hq/test/Other song", seed=9)
    folder = built("musdb18hq", tmp_path / "hq", tmp_path / "out")
    for split, name in (("train", names[0]), ("validation", names[1]), ("test", "Other song")):
        source = songs(folder, split)
        assert len(source) == 1
        assert source.name(0) == name
    expected = stems[names[0]]
    source = songs(folder)
    others = sum(expected[stem] for stem in MUSDB_STEMS[:3])
    assert_stems(source, 0, expected["vocals"], others)
    assert source.num_samples(0) == RATE
    np.testing.assert_allclose(source.level(0), np.sqrt(np.mean(expected["mixture"] ** 2)), 1e-5)
    assert source.table.mixture_error[0] < 1e-6
    with pytest.raises(ValueError, match=f"expected 0 to {RATE}"):
        source.segment(0, RATE - 10, 11)


def test_tfds_reads_it_as_any_other_data_set(tmp_path):
    write_musdb18hq_song(tmp_path / "hq/train/Song", num_samples=2 * RATE)
    folder = built("musdb18hq", tmp_path / "hq", tmp_path / "out")
    builder = tfds.builder_from_directory(folder)
    records = builder.as_data_source("train")
    starts = [record["position"] for record in records]
    hop = SMALL["record_samples"] - SMALL["overlap_samples"]
    assert starts == [0, hop, 2 * hop, 2 * RATE - SMALL["record_samples"]]
    record = records[1]
    assert record["song"] == b"Song"
    assert record["mixture_is_sum"]
    assert record["vocals"].dtype == np.int16
    np.testing.assert_allclose(
        record["vocals_db"], 20 * np.log10(record["vocals"].std() / 32768), atol=0.01
    )


def test_a_real_stem_mp4(tmp_path):
    real = excerpt.load_excerpt()
    (tmp_path / "mus/train").mkdir(parents=True)
    shutil.copy(excerpt._stem_file(), tmp_path / "mus/train/The Easton Ellises.stem.mp4")
    source = songs(built("musdb18", tmp_path / "mus", tmp_path / "out"))
    first = excerpt._FIRST_SAMPLE
    got = source.segment(0, first, len(real.vocals))
    mixture = read_audio(excerpt._stem_file(), 0)[0][first:][: len(real.vocals)]
    for stem, expected in ((got.vocals, real.vocals), (got.vocals + got.accompaniment, mixture)):
        np.testing.assert_allclose(
            stem, expected, rtol=0, atol=1.02 * source.table.scale[0] / 32768
        )
    assert 0 < source.table.mixture_error[0] < 0.3  # the mixture is coded by itself


@pytest.mark.parametrize(
    ("subtype", "dtype"),
    [("PCM_U8", "int16"), ("PCM_16", "int16"), ("PCM_24", "float32"), ("PCM_32", "float32"),
     ("FLOAT", "float32"), ("DOUBLE", "float32")],
)  # fmt: skip
def test_samples_are_stored_as_the_source_has_them(tmp_path, subtype, dtype):
    song = tmp_path / "in/Song"
    write(song / "lead vocals.wav", noise(0), subtype=subtype)
    write(song / "guitar.wav", noise(1), subtype=subtype)
    folder = built("stems", tmp_path / "in", tmp_path / "out")
    source = songs(folder)
    assert source.format.dtype == dtype
    files = [read_audio(song / name)[0] for name in ("lead vocals.wav", "guitar.wav")]
    assert_stems(source, 0, *files)


@pytest.mark.parametrize("rate", [22_050, 48_000, 96_000])
def test_other_rates_are_resampled(tmp_path, rate):
    seconds, frequency = 1.5, 440.0
    time = np.arange(round(seconds * rate)) / rate
    sine = (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    write(tmp_path / "in/Song/vocals.flac", sine, rate, "PCM_24")
    write(tmp_path / "in/Song/mixture.flac", 2 * sine, rate, "PCM_24")
    source = songs(built("pairs", tmp_path / "in", tmp_path / "out"))
    assert source.num_samples(0) == round(seconds * RATE)
    vocals, accompaniment = whole(source)
    expected = 0.3 * np.sin(2 * np.pi * frequency * np.arange(len(vocals)) / RATE)
    middle = slice(2000, -2000)
    np.testing.assert_allclose(vocals[middle, 1], expected[middle], atol=1e-3)
    np.testing.assert_allclose(accompaniment[middle, 0], expected[middle], atol=1e-3)


def test_nested_stems_lead_and_backing_vocals_are_summed(tmp_path):
    root = tmp_path / "moises"
    song = root / "f40ffd10-4e8b-41e6"
    lead, backing, kick, bass = (noise(i, RATE - 100 * i, 1 + i % 2) for i in range(4))
    write(song / "vocals/9c.wav", lead, subtype="FLOAT")
    write(song / "vocals/backing.wav", backing, subtype="FLOAT")
    write(song / "drums/kick.wav", kick, subtype="FLOAT")
    write(song / "bass/bass guitar.wav", bass, subtype="FLOAT")
    write(root / "instrumental/piano.wav", noise(5))
    (song / "data.json").write_text("{}")
    patterns = tmp_path / "patterns.toml"
    patterns.write_text("vocals = ['vocals/*']")
    folder = built("stems", root, tmp_path / "out", patterns=patterns)
    source = songs(folder)

    def stereo(audio):
        padded = np.zeros((RATE, 2), np.float32)
        padded[: len(audio)] = audio
        return padded

    assert_stems(source, 0, stereo(lead) + stereo(backing), stereo(kick) + stereo(bass), 1e-7)
    assert len(source) == 1
    assert "filled up with 0.01 s" in source.table.note[0]
    assert "vocals" in source.table.reason[list(source.table.left_out).index("instrumental")]
    patterns.write_text("instrumentals = true")
    source = songs(built("stems", root, tmp_path / "all", patterns=patterns))
    assert len(source) == 2
    silent = list(source.table.name).index("instrumental")
    assert not whole(source, silent).vocals.any()
    assert not source.activity(silent).any()


def test_sums_beyond_full_scale_keep_their_peaks(tmp_path):
    for name in ("drums", "bass", "other", "vocals"):
        audio = np.full((RATE, 2), 0.9, np.float32)
        audio[::2] = -1.0
        write(tmp_path / "hq/train/Loud" / f"{name}.wav", audio)
    source = songs(built("musdb18hq", tmp_path / "hq", tmp_path / "out"))
    assert source.format.dtype == "int16"
    assert source.table.scale[0] == 4
    assert whole(source).accompaniment.min() == -3
    np.testing.assert_allclose(whole(source).vocals.max(), 0.9, atol=2 / 32768)
    assert source.table.clipped[0] == 4 * RATE
    assert source.table.peak[0] == 4


def test_what_cannot_be_used_is_left_out_by_name(tmp_path):
    root = tmp_path / "hq"
    write_musdb18hq_song(root / "train/Good")
    write_musdb18hq_song(root / "train/Cut")
    cut = root / "train/Cut/bass.wav"
    cut.write_bytes(cut.read_bytes()[:5000])
    write_musdb18hq_song(root / "train/Not audio")
    (root / "train/Not audio/drums.wav").write_text("no sound")
    write_musdb18hq_song(root / "train/No bass")
    (root / "train/No bass/bass.wav").unlink()
    write_musdb18hq_song(root / "train/Short", num_samples=1000)
    write_musdb18hq_song(root / "train/NaN")
    write(root / "train/NaN/other.wav", np.full((RATE, 2), np.nan, np.float32), subtype="FLOAT")
    table = songs(built("musdb18hq", root, tmp_path / "out", dtype="int16")).table
    assert list(table.name) == ["Good"]
    reasons = dict(zip(table.left_out, table.reason, strict=True))
    assert reasons.keys() == {"Cut", "Not audio", "train/No bass", "Short", "NaN"}
    assert "Cut/bass.wav: truncated" in reasons["Cut"]
    assert "Not audio/drums.wav" in reasons["Not audio"]
    assert "no bass.wav" in reasons["train/No bass"]
    assert "shorter than a training segment" in reasons["Short"]
    assert "NaN/other.wav: NaN" in reasons["NaN"]


class InterruptedBuildError(Exception):
    pass


def test_an_interrupted_build_goes_on(tmp_path):
    for i in range(3):
        write_musdb18hq_song(tmp_path / "hq/train" / f"Song {i}", seed=10 * i)
    made = []

    def stops_after_two(shards):
        for shard in itertools.islice(shards, 2):
            made.append(write_shard(shard)[0])
            yield made[-1], made[-1].with_suffix(".npz")
        raise InterruptedBuildError

    fields = {"songs_per_shard": 1}
    with pytest.raises(InterruptedBuildError):
        built("musdb18hq", tmp_path / "hq", tmp_path / "out", run=stops_after_two, **fields)
    times = [path.stat().st_mtime_ns for path in made]
    inodes = [path.stat().st_ino for path in made]
    # One that was cut while it was written, and one whose table was damaged.
    made[1].with_suffix(".npz").write_bytes(b"half")
    (made[0].parent / ".half.array_record.tmp").write_bytes(b"half")
    folder = built("musdb18hq", tmp_path / "hq", tmp_path / "out", **fields)
    records = sorted(folder.glob("*.array_record-*"))
    assert [p.name[-15:] for p in records] == [f"-0000{i}-of-00003" for i in range(3)]
    assert (records[0].stat().st_mtime_ns, records[0].stat().st_ino) == (times[0], inodes[0])
    assert records[1].stat().st_ino != inodes[1]
    assert not made[0].parent.exists()
    assert sorted(p.name for p in (tmp_path / "out/musdb18hq").iterdir()) == ["1.0.0"]
    fresh = songs(built("musdb18hq", tmp_path / "hq", tmp_path / "fresh", **fields))
    for song in range(3):
        np.testing.assert_array_equal(whole(songs(folder), song), whole(fresh, song))


@pytest.mark.slow
def test_worker_processes_build_the_same(tmp_path):
    for i in range(3):
        write_musdb18hq_song(tmp_path / "hq/train" / f"Song {i}", seed=10 * i)
    (tmp_path / "hq/train/Song 1/vocals.wav").write_text("broken")
    for workers in (1, 2):
        build.main(build_hq(tmp_path, str(workers), workers=workers, songs_per_shard=1))
    one, two = (open_source(str(tmp_path / str(workers))) for workers in (1, 2))
    assert [one.name(i) for i in range(len(one))] == ["Song 0", "Song 2"]
    for song in range(2):
        assert one.name(song) == two.name(song)
        np.testing.assert_array_equal(whole(one, song), whole(two, song))
        np.testing.assert_array_equal(one.activity(song), two.activity(song))


def test_the_command_reports_and_finds_what_is_built(tmp_path, capsys):
    write_musdb18hq_song(tmp_path / "hq/train/[bold]Song")
    write_musdb18hq_song(tmp_path / "hq/train/Lost")
    (tmp_path / "hq/train/Lost/vocals.wav").unlink()
    command = build_hq(tmp_path)
    build.main(command)
    printed = capsys.readouterr().out
    assert "Lost" in printed
    assert "no vocals.wav" in printed.replace("\n", " ")
    assert (tmp_path / "out/musdb18hq/1.0.0/report.json").is_file()
    build.main(command)
    assert "exists; delete it" in capsys.readouterr().out
    assert len(open_source(str(tmp_path / "out"))) == 1
    assert len(open_source(str(tmp_path / "out"), split="validation")) == 1


def test_hosts_of_a_tpu_slice_build_unless_they_share_the_folder(tmp_path, monkeypatch):
    """Each may need the records on a disk of its own."""
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1")
    write_musdb18hq_song(tmp_path / "hq/train/Song")
    command = build_hq(tmp_path)
    with only_run(tmp_path / "out"), pytest.raises(UserError, match="out: in use by process"):
        build.main(command)
    build.main(command)
    assert len(open_source(str(tmp_path / "out"))) == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"OMPI_COMM_WORLD_SIZE=2.* start one process"):
        build.main(command)


def test_sigterm_ends_a_build_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_records", lambda _: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(PreemptedError, match="finished parts stay; run the same command"):
            build.main(build.Build(layout="stems", source=tmp_path, out=tmp_path / "out"))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_without_one_whole_song_is_refused(tmp_path):
    (tmp_path / "in/Song").mkdir(parents=True)
    (tmp_path / "in/Song/vocals.wav").write_text("no sound")
    (tmp_path / "in/Song/mixture.wav").write_text("no sound")
    with pytest.raises(UserError, match=r"none of the recordings .*(vocals|mixture)\.wav"):
        built("pairs", tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/*/dataset_info.json"))


def test_a_full_disk_ends_a_build_in_one_line(tmp_path, monkeypatch):
    write_musdb18hq_song(tmp_path / "hq/train/Song")

    class Full:
        def __init__(self, *_):
            pass

        def write(self, _):
            raise RuntimeError("No space left on device\nand more")

        def close(self):
            pass

    monkeypatch.setattr("data_pipelines.builders.shards.ArrayRecordWriter", Full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; make room"):
        built("musdb18hq", tmp_path / "hq", tmp_path / "out")
