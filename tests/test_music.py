"""Real music for training, from a small made-up package."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import music
from data_pipelines.music import Album, BuildMusic, build_music
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError

ALBUM = Album("tunes", "CC0-1.0", "A. N. Other", "{}.flac", "one @b")


@pytest.fixture
def packages(tmp_path) -> Path:
    root = tmp_path / "packages" / "tunes_2_all"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    soundfile.write(root / "one.flac", 0.1 * rng.standard_normal((30_000, 2)), 44_100)
    soundfile.write(root / "@b.flac", 0.1 * rng.standard_normal(11_025), 22_050)
    return root.parent


def test_tracks_are_songs_without_vocals_and_name_their_authors(tmp_path, packages, monkeypatch):
    monkeypatch.setattr(music, "_VALIDATION_EVERY", 1)
    command = BuildMusic(out=tmp_path / "music", downloads=packages)
    build_music(command, (ALBUM,))
    first, second = (tmp_path / "music/validation" / name for name in ("tunes-one", "tunes-b"))
    original = soundfile.read(packages / "tunes_2_all/one.flac")[0]
    np.testing.assert_allclose(
        soundfile.read(first / "accompaniment.wav")[0], original, atol=2**-15
    )
    stereo, rate = soundfile.read(second / "accompaniment.wav")
    assert (stereo.shape, rate) == ((22_050, 2), 44_100)
    np.testing.assert_array_equal(stereo[:, 0], stereo[:, 1])
    facts = json.loads((second / "song.json").read_text())
    assert (facts["authors"], facts["licence"], facts["version"]) == ("A. N. Other", "CC0-1.0", "2")
    source = open_source(str(tmp_path / "music"), split="validation")
    assert {source.name(song) for song in range(2)} == {"tunes-b", "tunes-one"}
    segment = source.segment(0, 1000, 2000)
    assert not segment.vocals.any()
    assert segment.accompaniment.std() > 0.05

    (packages / "tunes_2_all/one.flac").unlink()
    build_music(command, (ALBUM,))  # what is there is not built again


def test_bad_input_is_named(tmp_path, packages):
    other = tmp_path / "other"
    (other / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"other: holds something else; expected a new folder"):
        build_music(BuildMusic(out=other, downloads=packages), (ALBUM,))
    (packages / "tunes_2_all/@b.flac").unlink()
    with pytest.raises(UserError, match=r"package tunes 2: has no @b.flac"):
        build_music(BuildMusic(out=tmp_path / "new", downloads=packages), (ALBUM,))
