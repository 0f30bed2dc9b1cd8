"""The demo: the real song's excerpt, and the whole from a model to audio, picture and table."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import scored

import configs
import demo
from data_pipelines.embedded.excerpt import load_excerpt
from diffsep_jax import metrics
from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.inference.separator import Separation, Separator
from diffsep_jax.inference.settings import SamplerSettings


def stem_file():
    folders = importlib.util.find_spec("stempeg").submodule_search_locations
    return next((Path(folders[0]) / "data").glob("*.stem.mp4"))


# --- The excerpt.


def test_excerpt_is_six_seconds_of_stereo_stems():
    vocals, accompaniment, sample_rate = load_excerpt()
    assert sample_rate == 44_100
    assert vocals.shape == accompaniment.shape == (264_600 - 4_096, 2)
    assert vocals.dtype == accompaniment.dtype == np.float32
    # The voice pauses in the middle, the band does not: the streams are in the expected order.
    pause = slice(120_000, 140_000)
    assert np.std(vocals[pause]) < 0.1 * np.std(vocals)
    assert np.std(accompaniment[pause]) > 0.5 * np.std(accompaniment)


def test_excerpts_stems_add_up_to_the_files_mixture():
    """Up to the codec, which codes the mixture by itself: some 22 dB."""
    vocals, accompaniment, _ = load_excerpt()
    mixture = read_audio(stem_file(), stream=0)[0][4_096:264_600]
    error = mixture - vocals - accompaniment
    assert np.std(error) < 0.1 * np.std(mixture)


def test_excerpt_without_stempeg(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install stempeg"):
        load_excerpt()


# --- The command.


@pytest.fixture
def tiny_model(tmp_path):
    """A model directory whose name looks like markup; its weights are zero."""
    model = configs.get("tiny").model
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    save_model(tmp_path / "[" / "b]", model, params)
    return tmp_path / "[" / "b]"


def test_demo_writes_what_it_says(tmp_path, tiny_model, monkeypatch, capsys):
    halves = lambda self, mixture, *_, **__: Separation(mixture / 2, mixture / 2)  # noqa: E731
    monkeypatch.setattr(demo.Separator, "separate", halves)  # utterance SDRs are then known
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "SONG_SECONDS", 4.0)
    out = tmp_path / "out [i]"
    demo.main(demo.Demo(out=out, model=str(tiny_model), num_songs=1))
    names = ("mixture", "reference_vocals", "vocals", "accompaniment", "vocals_direct")
    stems = {name: read_audio(out / f"{name}.wav")[0] for name in names}
    vocals, accompaniment, _ = load_excerpt()
    assert np.array_equal(stems["mixture"], vocals + accompaniment)
    assert np.array_equal(stems["reference_vocals"], vocals)
    assert np.array_equal(stems["vocals"], stems["mixture"] / 2)
    assert np.array_equal(stems["accompaniment"], stems["mixture"] - stems["vocals"])
    assert sorted(path.stem for path in out.iterdir()) == sorted((*names, "demo"))
    printed = capsys.readouterr().out
    for said in ("CC BY-NC-SA 3.0", "T=8", *(f"{name}.wav" for name in names)):
        assert said in printed
    for named in ("[/b]", "out [i]"):
        assert named in printed.replace("\n", "")


class Adding(Separator):
    """Vocals = mixture + seed."""

    def __init__(self):
        pass

    def separate(self, mixture, sample_rate, **options):
        vocals = mixture + np.float32(options["settings"].seed)
        return Separation(vocals, mixture - vocals)


def test_each_estimate_is_scored_by_its_settings():
    song = scored.song()
    settings = {"zero": SamplerSettings(seed=0), "one": SamplerSettings(seed=1)}
    rows, separated = demo.score(
        "songs", Adding(), song.vocals, song.accompaniment, song.sample_rate, settings
    )
    assert np.array_equal(separated["zero"], song.mixture)
    np.testing.assert_allclose(separated["one"], song.mixture + 1, atol=1e-6)
    zero, one = rows
    assert zero["utterance_sdr"] == zero["mixture_sdr"] == pytest.approx(0, abs=0.1)
    assert one["utterance_sdr"] == metrics.sdr(song.vocals, separated["one"])
    assert (one["songs"], one["condition"], one["audio_seconds"]) == ("songs", "one", 1)


def test_the_table_has_medians_over_tracks_with_vocals():
    def row(songs, condition, sdr, seconds=1.0):
        mixture = None if sdr is None else 0.0
        row = {"songs": songs, "condition": condition, "utterance_sdr": sdr}
        return row | {"mixture_sdr": mixture, "seconds": seconds, "audio_seconds": 1.0}

    rows = [row("songs", "direct", sdr) for sdr in (20.0, 0.0, 6.0, None)]
    rows += [row("songs", "diffusion", 20.0, 2.0), row("rests [/b]", "diffusion", None)]
    assert demo.table_of(rows).rows == [
        ["songs", "direct", "0.00", "6.00", "+6.00", "4.0", "1.00"],
        ["songs", "diffusion", "0.00", "20.00", "+20.00", "2.0", "2.00"],
        ["rests [/b]", "diffusion", "silent", "silent", "", "1.0", "1.00"],
    ]


def test_an_error_is_one_line_and_nothing_is_written(tmp_path, tiny_model, capsys):
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        demo.main(demo.Demo(out=tmp_path / "out", model=str(tiny_model), num_songs=0))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "num_songs is 0" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
