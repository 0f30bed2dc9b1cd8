"""The Python interface, with a model that halves its input."""

import dataclasses
import importlib.metadata
import importlib.resources
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from halving import RATE, TINY, Halving, noise, song

import diffsep_jax
from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.estimates import SeparatorEstimates
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.inference import separator as separator_module
from diffsep_jax.inference.limiter import LIMIT
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerSettings
from diffsep_jax.models.model import SeparationModel

pytestmark = pytest.mark.usefixtures("halving")


@pytest.mark.parametrize("shape", [(9000,), (9000, 1), (9000, 2)])
def test_waveform_to_waveforms(shape):
    mixture = noise(*shape)
    result = Separator.from_pretrained("small").separate(mixture, RATE)
    assert result.vocals.shape == result.accompaniment.shape == shape
    assert result.vocals.dtype == np.float32
    np.testing.assert_allclose(result.vocals, mixture / 2, rtol=1e-6)
    assert np.array_equal(result.accompaniment, mixture - result.vocals)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_waveform_to_refine(num_channels):
    mixture, guess = noise(5000, 2), noise(5000, num_channels)[::-1]
    separator = Separator.from_pretrained("small", batch_size=2)
    separator.separate(mixture, RATE, refine=guess, start_sigma=0.3, overlap=0.0)
    level = np.sqrt(np.mean(np.square(mixture)))
    scaled = np.broadcast_to(guess / level, (5000, 2))
    np.testing.assert_allclose(Halving.guess[0], scaled[:4096], rtol=1e-5)
    second = scaled[math.ceil(904 / Halving.stride) * Halving.stride :]
    np.testing.assert_allclose(Halving.guess[1][: len(second)], second, rtol=1e-5)
    for options, message in [
        ({"refine": guess[:4998], "start_sigma": 0.3}, "refine: its length is 4998 samples"),
        ({"refine": guess, "start_sigma": 1.0}, "start_sigma 1, which"),
        ({"refine": guess[None], "start_sigma": 0.3}, "refine is float32"),
    ]:
        with pytest.raises(UserError, match=message):
            separator.separate(mixture, RATE, **options)


def test_loud_vocals_are_limited_on_every_way(tmp_path, monkeypatch):
    def tripling(self, mixture, start, settings, guess=None):
        return jnp.asarray(3 * mixture)

    monkeypatch.setattr(Halving, "__call__", tripling)
    separator = Separator.from_pretrained("small")
    mixture, path = noise(9000, 2), song(tmp_path / "a.wav", noise(9000, 2))
    for options, gain in (({}, LIMIT), ({"limit_vocals": False}, 3.0)):
        vocals, accompaniment = separator.separate(mixture, RATE, **options)
        np.testing.assert_allclose(vocals, gain * mixture, rtol=1e-4)
        assert np.array_equal(accompaniment, mixture - vocals)
        files = separator.separate_file(path, tmp_path / "out", **options)
        np.testing.assert_allclose(read_audio(files["vocals"])[0], vocals, atol=1e-4)
        scored = SeparatorEstimates(
            separator, {"": PRESETS["fast"]}, repeats=1, overlap=0.2, **options
        )
        as_song = Song(name="a", vocals=mixture, accompaniment=0 * mixture, sample_rate=RATE)
        [estimated] = scored.estimate(as_song, "")
        assert np.array_equal(estimated.vocals, vocals)


def test_files_and_waveforms_go_one_way(tmp_path):
    separator = Separator.from_pretrained("small", batch_size=1)
    path = song(tmp_path / "a.wav", rate=48_000)
    in_memory = separator.separate(*read_audio(path), overlap=0.1)
    files = separator.separate_file(path, tmp_path / "out", overlap=0.1)
    for stem, file in files.items():
        assert np.array_equal(getattr(in_memory, stem), read_audio(file)[0])


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((0, 2), np.float32), "waveform: no samples"),
        (np.zeros((0,), np.float32), "waveform: no samples"),
        (np.full((9, 2), np.nan, np.float32), "waveform: NaN or infinity at sample 0"),
        (np.full((9, 2), 1e300), "waveform: NaN or infinity at sample 0"),
        (np.zeros((9, 2), np.int16), r"waveform is int16 \[9, 2\]; expected floating point"),
        (np.zeros((9, 2, 1), np.float32), r"float32 \[9, 2, 1\]; expected floating point \[time\]"),
        (np.zeros((2, 99), np.float32), r"99 channels; expected \[time, channel\]"),
    ],
)
def test_bad_waveforms(waveform, message):
    with pytest.raises(UserError, match=message):
        Separator.from_pretrained("small").separate(waveform, RATE)


def test_a_function_and_a_preset_reach_the_model():
    def mine(velocity_fn, noise, *, steps): ...

    separator = Separator.from_pretrained("small")
    separator.separate(noise(99), RATE, sampler=mine, steps=3)
    assert Halving.settings == SamplerSettings(sampler=mine, steps=3)
    separator.separate(noise(99), RATE, preset="best", seed=4)
    assert Halving.settings == dataclasses.replace(PRESETS["best"], seed=4)


def test_what_is_known_of_a_model():
    params = {"a": {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}}
    assert f"batch size {jax.local_device_count()}," in repr(Separator(TINY, params))
    separator = Separator(TINY, params, batch_size=4)
    assert (separator.sample_rate, separator.segment, separator.num_parameters) == (RATE, 4096, 16)
    assert repr(separator) == (
        "Separator(0.0M parameters, 44100 Hz, chunks of 0.1 s, batch size 4, float32,"
        " preset balanced)"
    )


def test_the_networks_compute_in_the_type_that_was_chosen(monkeypatch):
    models: list[SeparationModel] = []

    def remember(model, params, *, batch_size):
        models.append(model)
        return Halving(model, params, batch_size=batch_size)

    monkeypatch.setattr(separator_module, "ChunkSeparator", remember)
    Separator(TINY, {}, dtype="bfloat16")
    Separator(TINY, {})
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert Separator(TINY, {}).dtype == "bfloat16"
    types = ["bfloat16", "float32", "bfloat16"]
    assert [model.compute.dtype for model in models] == types


def test_the_package_tells_its_names_and_version():
    for name in diffsep_jax.__all__:
        assert name in dir(diffsep_jax)
        assert getattr(diffsep_jax, name)
    assert diffsep_jax.__version__ == importlib.metadata.version("diffsep-jax")
    assert (importlib.resources.files("diffsep_jax") / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'separate'"):
        _ = diffsep_jax.separate


def test_misspelt_option_in_python():
    with pytest.raises(TypeError, match="step"):
        Separator.from_pretrained("small").separate(noise(99), RATE, step=3)


def test_warm_up_checks_options_and_compiles(monkeypatch):
    separator = Separator.from_pretrained("small")
    separator.warm_up(steps=500, eta=0.3, sampler="ddim")
    assert Halving.compiled == (SamplerSettings(steps=500, eta=0.3), False)
    separator.warm_up(refines=True, start_sigma=0.3)
    settings, refines = Halving.compiled
    assert (settings.start_sigma, refines) == (0.3, True)
    for options in ({"cutoff_hz": 23_000.0}, {"overlap": 0.7}, {"steps": 0}):
        expected = next(iter(options))
        with pytest.raises(UserError, match=expected):
            separator.warm_up(**options)
