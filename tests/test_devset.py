"""The development set, made of small made-up packages: what it promises, resuming, bad input."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from data_pipelines.devset import build, clips
from data_pipelines.devset.build import BuildDevset, build_devset
from data_pipelines.devset.lines import Take, clean_take, draw_line, sounding
from data_pipelines.devset.mixing import mix, silent_seconds
from data_pipelines.devset.pitched import compose_melody, harmonise
from data_pipelines.devset.sources import DEBIAN, Table, _band, _voice
from data_pipelines.devset.tonality import find_tonality
from data_pipelines.packages import fetch
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError

RATE = 44_100


def syllable(f0: float, seconds: float, rate: int) -> np.ndarray:
    """A harmonic tone that rises and falls, after a short hiss."""
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * k * f0 * (1 - 0.05 * t) * t) / k for k in range(1, 12))
    hiss = np.random.default_rng(int(f0)).standard_normal(int(0.06 * rate))
    return 0.1 * np.concatenate([hiss, tone * np.hanning(len(t)) ** 0.3])


def progression(tonic: int, mode: str, tuning_cents: float, beat: float, seconds: float):
    """I IV V I in a key, a chord for two beats, every beat replayed; mono."""
    third = 4 if mode == "major" else 3
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    x = np.zeros(int(seconds * RATE))
    for index, start in enumerate(np.arange(0.1, seconds - 0.1, beat)):
        at = int(start * RATE)
        t = np.arange(min(int(beat * RATE), len(x) - at)) / RATE
        for step in chords[index // 2 % 4]:
            pitch = 48 + tonic + step + tuning_cents / 100
            for k in range(1, 5):
                hz = 440 * 2 ** ((pitch - 69) / 12) * k
                x[at : at + len(t)] += np.sin(2 * np.pi * hz * t) * np.exp(-5 * t) / k
    return 0.05 * x


TABLE = Table(
    voices={
        "high": _voice(("voices", "CC0-1.0", "{}/*.wav"), "high", "en", "tones"),
        "low": _voice(
            ("voices", "CC0-1.0", "{}/*.wav"), "low", "en", "tones", bandwidth_hz=11_025, sung=True
        ),
    },
    bands={
        name: _band(("bands", "CC0-1.0", "{}.wav"), "chords", name, 0.0, 3.0)
        for name in ("one", "two")
    },
    spoken=("high", "low", "high"),
    pitched=(("high", "two"), ("low", "one")),
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    rng = np.random.default_rng(0)
    for voice, f0, rate in (("high", 260.0, RATE), ("low", 120.0, 22_050)):
        root = folder / "voices_1%3a2_all" / voice
        root.mkdir(parents=True)
        for index in range(26):
            take = syllable(f0 * rng.uniform(0.9, 1.1), rng.uniform(0.5, 0.9), rate)
            soundfile.write(root / f"{index}.wav", take, rate)
    (folder / "bands_3_all").mkdir()
    for name, mode in (("one", "major"), ("two", "minor")):
        band = progression(2, mode, 0, 0.5, 14)
        soundfile.write(folder / "bands_3_all" / f"{name}.wav", band, RATE)
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_takes():
    """Of a pitched voice, as their analysis takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "_TAKES_SECONDS", 4.0)
        yield


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("devset") / "out"
    build_devset(BuildDevset(out=out, downloads=packages), TABLE)
    return out


def content(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_every_clip_is_what_was_promised(built):
    songs = open_source(str(built))
    meta = json.loads((built / "meta.json").read_text())
    assert [songs.name(i) for i in range(len(songs))] == list(meta)
    parts = [about["part"] for about in meta.values()]
    assert parts == ["spoken", "sung", "spoken", "sung", "sung", "demo"]
    for index, (name, about) in enumerate(meta.items()):
        vocals, band = songs.segment(index, 0, songs.num_samples(index))
        assert ("bandwidth_hz" in about) == ("_22k_" in name)
        if about["part"] == "demo":
            continue
        mask = sounding(vocals.mean(axis=1))
        power = [np.square(x[: len(mask)][mask]).mean() for x in (vocals, band)]
        assert -6.5 < 10 * np.log10(power[0] / power[1]) < 3.5
        silence = 1e-3 * np.sqrt(np.square(vocals + band).mean())
        blocks = [vocals[i : i + 2048] for i in range(0, len(vocals) - 2047, 2048)]
        silent = [np.sqrt(np.square(block).mean()) < silence for block in blocks]
        assert sum(silent) * 2048 >= RATE
        assert np.abs(vocals + band).max() == pytest.approx(0.89, abs=1e-3)
        assert about["packages"] == {"voices": "1:2", "bands": "3"}


def test_the_pitched_voice_ends_up_on_the_melody(built):
    about = json.loads((built / "meta.json").read_text())["04_high_pitched_two"]
    vocals, rate = soundfile.read(built / "04_high_pitched_two" / "vocals.wav")
    assert about["key"] == "D minor"
    held = [note for note in about["notes"] if note[1] - note[0] > 0.7]
    assert held
    for start, end, pitch in held:
        x = vocals[int((start + 0.2) * rate) : int((end - 0.15) * rate), 0]
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 2**18))
        hz = 440 * 2 ** ((pitch - 69) / 12)
        near = np.arange(int(0.84 * hz * 2**18 / rate), int(1.19 * hz * 2**18 / rate))
        found = near[np.argmax(spectrum[near])] * rate / 2**18
        assert abs(12 * np.log2(found / hz)) < 0.6


def test_an_interrupted_build_goes_on_to_the_same_files(packages, built, tmp_path, monkeypatch):
    write = build.write_folder

    def interrupted(folder: Path, files: dict[str, bytes]) -> None:
        if folder.name == "02_low_22k_two":
            raise KeyboardInterrupt
        write(folder, files)

    command = BuildDevset(out=tmp_path, downloads=packages)
    monkeypatch.setattr(build, "write_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_devset(command, TABLE)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("01_high_one", "06_demo", "lock", "meta.json")
    ]
    monkeypatch.setattr(build, "write_folder", write)
    build_devset(command, TABLE)
    assert content(tmp_path) == content(built)


def test_a_finished_set_needs_no_packages(built, tmp_path):
    before = content(built)
    build_devset(BuildDevset(out=built, downloads=tmp_path / "none"), TABLE)
    assert content(built) == before


@pytest.mark.parametrize(
    ("there", "holds"), [("song.wav", "something else"), ("meta.json", "version 0 of the dev")]
)
def test_a_folder_that_holds_something_else_is_refused(packages, tmp_path, there, holds):
    (tmp_path / there).write_text('{"01_high_one": {"version": "0"}}')
    with pytest.raises(UserError, match=f"{tmp_path}: holds {holds}"):
        build_devset(BuildDevset(out=tmp_path, downloads=packages), TABLE)


def test_a_package_without_a_listed_file_is_named(packages):
    gone = dataclasses.replace(TABLE.voices["high"], files="gone/*.wav")
    table = dataclasses.replace(TABLE, voices=TABLE.voices | {"high": gone})
    with pytest.raises(UserError, match=r"^package voices 1:2: has no gone/\*\.wav; [^\n]*$"):
        list(clips.make_clips(table, packages, clips.clip_names(table)[:1]))


def test_what_lies_in_an_archive_is_read_or_named(tmp_path):
    root = tmp_path / "music_1_all"
    root.mkdir()
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 100), RATE, subtype="FLOAT")
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.wav", "deep/a.wav")
        archive.writestr("bad.wav", b"no audio")
    package = fetch("music", tmp_path)
    audio, rate = package.read("all.zip!deep/a.wav")
    assert rate == RATE
    np.testing.assert_allclose(audio[:, 0], np.linspace(-0.5, 0.5, 100), atol=1e-7)
    for file, message in (
        ("all.zip!b.wav", "has no all.zip!b.wav"),
        ("all.zip!bad.wav", "damaged"),
        ("none.wav", "has no none.wav"),
    ):
        with pytest.raises(UserError, match=message):
            package.read(file)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder of programs that come before the system's; apt-get and dpkg-deb work at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "apt-get", "for name; do :; done; echo content > ${name}_1%3a0_all.deb")
    program(folder, "dpkg-deb", "mkdir $3; cp $2 $3/file")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_package_is_downloaded_and_unpacked_once(programs, tmp_path):
    package = fetch("game-music", tmp_path / "new")
    assert (package.name, package.version) == ("game-music", "1:0")
    assert [path.name for path in package.find("*")] == ["file"]
    program(programs, "apt-get", "exit 1")
    program(programs, "dpkg-deb", "exit 1")
    assert fetch("game-music", tmp_path / "new") == package


@pytest.mark.parametrize(
    ("name", "script", "message"),
    [
        (
            "apt-get",
            "echo 'W: x' >&2; echo 'E: Unable to locate package game' >&2; exit 100",
            "package game: apt-get failed: E: Unable to locate package game; is there a network",
        ),
        ("dpkg-deb", "touch half; echo 'No space left' >&2; exit 2", "failed: No space left"),
    ],
)
def test_what_goes_wrong_with_a_package_is_one_line(programs, tmp_path, name, script, message):
    program(programs, name, script)
    with pytest.raises(UserError, match=message):
        fetch("game", tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_system_without_apt_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"apt-get: not found; .* Debian"):
        fetch("game", tmp_path)


@pytest.mark.parametrize(
    ("tonic", "mode", "cents", "beat"),
    [(0, "major", 0, 0.5), (9, "minor", 20, 0.6), (6, "major", -30, 0.45), (3, "minor", 5, 0.7)],
)
def test_tonality_of_a_progression_is_found(tonic, mode, cents, beat):
    found = find_tonality(progression(tonic, mode, cents, beat, 9), RATE)
    assert (found.tonic, found.mode) == (tonic, mode)
    assert found.tuning_cents == pytest.approx(cents, abs=3)
    assert found.beat_seconds == pytest.approx(beat, rel=0.02)
    late = (found.first_beat - 0.1) / beat
    assert abs(late - round(late)) < 0.15
    np.testing.assert_allclose(found.chroma.sum(axis=1), 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_melody_lies_in_the_key_and_rests(seed):
    tonality = find_tonality(progression(7, "major", 15, 0.5, 9), RATE)
    rng = np.random.default_rng(seed)
    notes = compose_melody(rng, tonality, 60.0, 9.0)
    for part in (notes, harmonise(notes, tonality, 2)):
        classes = {round(note.pitch - tonality.tuning_cents / 100) % 12 for note in part}
        assert classes <= {7, 9, 11, 0, 2, 4, 6}
    assert all(54.9 <= note.pitch - 0.15 <= 68.1 for note in notes)
    ends = [0.0, *(note.end for note in notes)]
    rests = np.array([*(note.start for note in notes), 9.0]) - ends
    assert rests.min() > -1e-6
    assert rests[[0, -1]].min() >= 0.69
    assert rests.sum() > 1.4
    assert max(note.end - note.start for note in notes) > 0.7


def test_a_line_uses_takes_once_and_leaves_pauses():
    def read(file: Path) -> Take | None:
        if file.name == "3":
            return None
        return Take(np.ones(22_050), 22_050)

    pool = [Path(str(index)) for index in range(30)]
    rng = np.random.default_rng(0)
    lines = [draw_line(rng, pool, read) for _ in range(2)]
    for line in lines:
        assert 8 * RATE <= len(line) <= 10 * RATE
        assert 0.6 <= (line != 0).mean() <= 0.74
    used = sum(int((line != 0).sum()) for line in lines) // 22_050
    assert pool == [Path(str(index)) for index in range(used + 1, 30)]


def test_a_take_is_trimmed_and_even():
    rng = np.random.default_rng(0)
    tone = syllable(200, 1.0, RATE)
    padded = np.concatenate([np.zeros(RATE), tone, np.zeros(RATE)])[:, None] + 0.4  # an offset
    take = clean_take(padded + 1e-5 * rng.standard_normal(padded.shape), RATE, 1.0)
    assert take is not None
    assert len(take.samples) < len(tone) + 0.1 * RATE
    assert np.sqrt(np.square(take.samples).mean()) == pytest.approx(1, abs=0.2)
    assert clean_take(padded[:4000], RATE, 1.0) is None


def test_a_gate_leaves_silence_and_the_voice():
    rng = np.random.default_rng(1)
    voice = np.zeros((9 * RATE, 2))
    for start in range(8):
        tone = syllable(220, 0.6, RATE)
        voice[start * RATE : start * RATE + len(tone)] += tone[:, None]
    band = 0.1 * scipy.signal.lfilter([1], [1, -0.9], rng.standard_normal(voice.shape), axis=0)
    clip = mix(np.random.default_rng(0), voice, band, off_centre=False, reverberant=True)
    assert 1 <= silent_seconds(clip.vocals, clip.accompaniment) < 2
    assert clip.facts["rt60_s"] > 0.3
    mask = sounding(voice[:, 0])
    power = [np.square(x[: len(mask)][mask]).mean() for x in (clip.vocals, clip.accompaniment)]
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(clip.facts["level_db"], abs=0.02)


def test_the_table_names_what_it_has():
    assert len(clips.clip_names(DEBIAN)) == len(set(clips.clip_names(DEBIAN))) >= 24
    assert {*DEBIAN.spoken, *(who for who, _ in DEBIAN.pitched)} == set(DEBIAN.voices)
