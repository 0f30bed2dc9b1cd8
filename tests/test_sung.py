"""Songs of synthesised voices: each a function of seed and number, whole on disk or not there."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import build
from data_pipelines.processes import map_unordered
from data_pipelines.sources import open_source
from data_pipelines.sung import build as sung_build
from data_pipelines.sung import effects, song, soundfont, stock
from data_pipelines.sung.build import BuildSung, build_sung
from data_pipelines.sung.codec import CODECS, through_codec
from diffsep_jax.errors import UserError

RATE = song.SAMPLE_RATE


def noise(seconds, seed=0):
    """Slowly breathing noise, stereo."""
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((int(seconds * RATE), 2)) * 0.1
    return (audio * np.sin(np.linspace(0, 20, len(audio)))[:, None] ** 2).astype(np.float32)


@pytest.fixture
def quick(monkeypatch):
    """Renders noise in place of songs."""

    def render(config, number):
        stems = noise(config.seconds, 2 * number), noise(config.seconds, 2 * number + 1)
        return song.Song(vocals=stems[0], accompaniment=stems[1], facts={"song": number})

    monkeypatch.setattr(sung_build, "render", render)


def command(out, **options):
    settings = {"hours": 3 * 10 / 3600, "song_seconds": 10.0, "voices": ("procedural",)} | options
    return BuildSung(out=out, **settings)


@pytest.fixture(scope="module")
def config():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "SOURCES", {"hibari": 55.0})  # the one speaker that the tests install
        yield song.SongConfig(
            seed=3, seconds=10.0, voices=("procedural", "world"), fonts=soundfont.find_fonts()[:1]
        )


def test_songs_are_functions_of_their_number_fit_into_full_scale_and_say_what_they_are(config):
    songs = [song.render(config, number) for number in range(4)]
    again = song.render(config, 0)
    np.testing.assert_array_equal(songs[0].vocals, again.vocals)
    np.testing.assert_array_equal(songs[0].accompaniment, again.accompaniment)
    assert songs[0].facts == again.facts
    assert not np.array_equal(songs[0].vocals, songs[1].vocals)
    for made in songs:
        for audio in (made.vocals, made.accompaniment, made.vocals + made.accompaniment):
            assert audio.shape == (10 * RATE, 2)
            assert 1e-3 < np.abs(audio).max() < 1
        facts = json.loads(json.dumps(made.facts))
        assert facts["engine"] in config.voices
        assert 0.1 < facts["sung_share"] < 0.95


@pytest.mark.parametrize("effect", [*effects._EFFECTS, *effects._SPACES])
def test_an_effect_changes_a_voice_but_neither_its_length_nor_its_sense(effect):
    voice = noise(2)
    rng = np.random.default_rng(1)
    result = effect(effects.Desk(rng, RATE, 120.0), voice.copy())
    assert result.shape == voice.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert (effect is effects.dry) == np.array_equal(result, voice)
    correlation = np.sum(result * voice) / np.linalg.norm(result) / np.linalg.norm(voice)
    assert correlation > 0.1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_codec_leaves_every_sample_in_its_place(codec, strength):
    rng = np.random.default_rng(0)
    clicks = np.zeros((RATE, 2), np.float32)
    for start in rng.integers(2000, RATE - 4000, 12):
        burst = rng.standard_normal(800).cumsum() * np.hanning(800)
        clicks[start : start + 800] += (burst / np.abs(burst).max() * 0.3)[:, None]
    decoded = through_codec(clicks, codec, strength, RATE)
    assert decoded.shape == clicks.shape
    spectra = np.fft.rfft(clicks[:, 0], 2 * RATE), np.fft.rfft(decoded[:, 0], 2 * RATE)
    lag = np.argmax(np.fft.irfft(spectra[1] * spectra[0].conj()))
    assert lag in (0, 1, 2 * RATE - 1)
    assert not np.array_equal(decoded, clicks)


def test_vorbis_takes_a_song_that_does_not_fit_on_the_stack():
    silence = np.zeros((2**21, 2), np.float32)
    assert not through_codec(silence, "vorbis", 0.5, RATE).any()


def test_a_build_can_be_trained_on(tmp_path, quick, capsys):
    options = f"--out {tmp_path / 'songs'} --hours 0.06 --song-seconds 10 --voices procedural"
    build.main(build.parse(["sung", *options.split()]))
    assert "22 songs" in capsys.readouterr().out
    train, validation = (
        open_source(str(tmp_path / "songs"), split=split) for split in ("train", "validation")
    )
    assert (len(train), len(validation)) == (21, 1)
    vocals, accompaniment = train.segment(0, 0, train.num_samples(0))
    np.testing.assert_allclose(vocals, noise(10, 0), atol=0.6 / 32768)
    np.testing.assert_allclose(accompaniment, noise(10, 1), atol=1.6 / 32768)


def test_an_interrupted_build_goes_on(tmp_path, quick, monkeypatch):
    rendered = []
    render = sung_build.render

    def second_one_fails(config, number):
        rendered.append(number)
        if len(rendered) == 2:
            raise KeyboardInterrupt
        return render(config, number)

    monkeypatch.setattr(sung_build, "render", second_one_fails)
    with pytest.raises(KeyboardInterrupt):
        build_sung(command(tmp_path))
    (tmp_path / "train" / ".song-000001.tmp").mkdir()  # of a killed process
    build_sung(command(tmp_path))
    assert rendered == [0, 1, 1, 2]
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        f"song-00000{number}" for number in range(3)
    ]
    build_sung(command(tmp_path, workers=2))  # nothing is left to do
    assert rendered == [0, 1, 1, 2]


def test_workers_end_at_once_with_the_first_error_or_when_one_is_killed():
    with pytest.raises(ValueError, match="sleep length must be non-negative"):
        list(map_unordered(time.sleep, [1000.0, -1.0], workers=2))
    with pytest.raises(UserError, match="a worker process was killed"):
        list(map_unordered(os._exit, [1], workers=2))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hours": 0.0}, "hours is 0.0; expected more than 0"),
        ({"workers": 0}, "workers is 0; expected at least 1"),
        ({"song_seconds": 1.0}, "song_seconds is 1.0; expected at least 10"),
        ({"voices": ("caruso",)}, "voices is caruso; expected some of procedural, world"),
        ({"voices": ()}, "voices is empty; expected some of"),
        ({"fonts": (Path("nothing.sf2"),)}, "nothing.sf2: no such sound font"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, quick, options, line):
    out = tmp_path / "songs"
    with pytest.raises(UserError) as error:
        build_sung(command(out, **options))
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


def test_a_folder_of_other_songs_is_not_mixed_with_these(tmp_path, quick):
    build_sung(command(tmp_path / "songs"))
    with pytest.raises(UserError, match="seed is 0; expected 7"):
        build_sung(command(tmp_path / "songs", seed=7))
    settings = tmp_path / "songs" / "sung.json"
    settings.write_text(settings.read_text().replace('"procedural"', '"procedural", "sinsy"'))
    with pytest.raises(UserError, match=r"voices is \['procedural', 'sinsy'\]; expected \['proced"):
        build_sung(command(tmp_path / "songs"))  # sinsy was a voice of earlier versions
    (tmp_path / "songs" / "sung.json").write_text("{")
    with pytest.raises(UserError, match=r"sung\.json: cannot be read; .* choose another --out"):
        build_sung(command(tmp_path / "songs"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match="holds something else"):
        build_sung(command(tmp_path / "photos"))
