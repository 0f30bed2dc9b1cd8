"""Exported samplers: what is in the folder, and that it computes what the package does."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import micro
import numpy as np
import pytest
import soundfile as sf
from safetensors.numpy import load_file

from diffsep_jax import cli
from diffsep_jax.errors import UserError
from diffsep_jax.inference.engine import ChunkSeparator
from diffsep_jax.inference.export import PLATFORMS, export_sampler
from diffsep_jax.inference.pretrained import load_model, save_model
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerSettings, complete
from diffsep_jax.models.compute import Compute

SCRIPT = Path(__file__).parent.parent / "docs" / "run_exported.py"
CUSTOM_CALL = "custom_call @"


@pytest.fixture(scope="module")
def params():
    return micro.random_params(micro.MODEL)


def chunks_of(model):
    mixture = np.random.default_rng(0).standard_normal((3, model.segment, 2), np.float32)
    return mixture, np.array([0, 400, 80_000], np.int32)


def separator_of(model, params):
    return ChunkSeparator(model, params, batch_size=3, devices=jax.devices()[:1])


def deserialize(folder):
    return jax.export.deserialize(bytearray((folder / "sampler.jaxexport").read_bytes()))


def values_of(settings, about):
    """The values that export.json names, typed as it says."""
    return {
        each["name"]: np.asarray(getattr(settings, each["name"]), each["dtype"])
        for each in about["values"]
    }


@pytest.mark.parametrize(
    ("family", "sampler", "platforms"),
    [
        ("waveform", "ddim", ("cpu",)),
        ("waveform", "ab2", ("cpu", "cuda", "tpu")),
        ("spectral", "ab2", PLATFORMS),
    ],
)
def test_an_exported_sampler_is_the_packages(tmp_path, family, sampler, platforms):
    model = micro.FAMILIES[family]
    params = micro.random_params(model)
    chunks, separate = chunks_of(model), separator_of(model, params)
    exported_settings = SamplerSettings(sampler=sampler)
    about = export_sampler(model, params, tmp_path, settings=exported_settings, platforms=platforms)
    exported = deserialize(tmp_path)
    assert exported.platforms == platforms
    program = jax.jit(exported.call)
    stored = load_file(tmp_path / "model.safetensors")
    for options in (
        {"steps": 3},
        {"steps": 2, "eta": 0.0, "cutoff_hz": 0.0, "seed": 2**32 - 1},
        {"steps": 1, "start_sigma": 0.3, "ensemble": 2},
        {"steps": 3, "schedule": 3.0, "crossover_hz": 5000.0},
    ):
        settings = SamplerSettings(sampler=sampler, **options)
        vocals = program(stored, *chunks, values_of(settings, about))
        np.testing.assert_allclose(vocals, separate(*chunks, settings), atol=1e-5, rtol=1e-5)
    assert program._cache_size() == 1


def test_the_batch_size_is_open_or_fixed(tmp_path, params):
    chunks = chunks_of(micro.MODEL)
    expected = separator_of(micro.MODEL, params)(*chunks, PRESETS["fast"])
    for name, batch_size in (("open", None), ("fixed", 3)):
        folder = tmp_path / name
        options = {"settings": PRESETS["fast"], "batch_size": batch_size, "platforms": ["cpu"]}
        export_sampler(micro.MODEL, params, folder, **options)
    stored = load_file(tmp_path / "open" / "model.safetensors")
    two = [array[:2] for array in chunks]
    vocals = deserialize(tmp_path / "open").call(stored, *two, {})
    np.testing.assert_allclose(vocals, expected[:2], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        deserialize(tmp_path / "fixed").call(stored, *two, {})


def test_the_folder_is_a_model_directory_with_a_description(tmp_path, params):
    settings = SamplerSettings(steps=10, start_sigma=0.5, ensemble=4)
    about = export_sampler(micro.MODEL, params, tmp_path, settings=settings, platforms=["cpu"])
    model, loaded = load_model(str(tmp_path))
    assert model == micro.MODEL
    assert json.loads((tmp_path / "export.json").read_text()) == about
    exported = deserialize(tmp_path)
    stored, *arrays, values = jax.tree.unflatten(exported.in_tree, exported.in_avals)[0]
    first, *described = about["arguments"]
    assert first == {"name": "params", "file": "model.safetensors"}
    assert len(stored) == len(jax.tree.leaves(loaded))
    for argument, each in zip(arrays, described, strict=True):
        assert list(map(str, argument.shape)) == list(map(str, each["shape"]))
        assert argument.dtype == each["dtype"]
    assert {name: value.dtype for name, value in values.items()} == {
        each["name"]: each["dtype"] for each in about["values"]
    }
    defaults = {each["name"]: each["default"] for each in about["values"]}
    assert SamplerSettings(**defaults) == settings
    assert (about["segment"], about["sample_rate"]) == (model.segment, model.sample_rate)
    assert about["calling_convention_version"] == exported.calling_convention_version
    size = (tmp_path / "sampler.jaxexport").stat().st_size
    assert size < 500_000  # no parameters in it


def long_model(dtype):
    """More positions than a plain product of all with all is for."""
    return dataclasses.replace(micro.MODEL, segment=64 * 520, compute=Compute(dtype=dtype))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_tpu_alone_has_its_own_kernel(tmp_path, params, batch_size):
    model = long_model("bfloat16")
    export_sampler(model, params, tmp_path, batch_size=batch_size, platforms=["tpu"])
    assert "@tpu_custom_call" in deserialize(tmp_path).mlir_module()


@pytest.mark.parametrize("platforms", [("cuda",), ("rocm", "cpu"), PLATFORMS])
def test_no_kernel_without_a_promise(tmp_path, params, platforms):
    """cuDNN's attention, which `auto` takes on GPUs in bfloat16, is not in the file."""
    export_sampler(long_model("bfloat16"), params, tmp_path, batch_size=2, platforms=platforms)
    assert CUSTOM_CALL not in deserialize(tmp_path).mlir_module()


@pytest.mark.parametrize(
    ("family", "sampler", "batch_size", "channels", "num_segments", "options"),
    [
        ("waveform", "ddim", None, 2, 5.1, {"steps": 2, "eta": 0.2, "seed": 5}),
        ("waveform", "direct", 4, 1, 2.0, {}),  # three chunks meet
        ("spectral", "ddim", None, 1, 1.3, {"steps": 2, "eta": 0.2, "seed": 5}),
    ],
)
def test_the_script_does_without_the_package(
    tmp_path, family, sampler, batch_size, channels, num_segments, options
):
    """Its vocals are the package's, for a whole track."""
    model = micro.FAMILIES[family]
    params = micro.random_params(model)
    settings = complete({"sampler": sampler})
    about = export_sampler(
        model, params, tmp_path, settings=settings, batch_size=batch_size, platforms=["cpu"]
    )
    length = round(num_segments * model.segment)
    song = 0.1 * np.random.default_rng(3).standard_normal((length, channels), np.float32)
    sf.write(tmp_path / "song.wav", song, 44_100, subtype="FLOAT")
    arguments = [tmp_path, tmp_path / "song.wav", tmp_path / "vocals.wav"]
    arguments += [f"{name}={value}" for name, value in options.items()]
    code = (
        "import runpy, sys\n"
        "sys.modules['diffsep_jax'] = None  # cannot be imported\n"
        "runpy.run_path(sys.argv.pop(1))"
    )
    command = [sys.executable, "-c", code, str(SCRIPT), *map(str, arguments)]
    subprocess.run(command, check=True, cwd=tmp_path)
    vocals, rate = sf.read(tmp_path / "vocals.wav", dtype="float32", always_2d=True)
    expected = Separator(model, params, batch_size=1).separate(
        song,
        44_100,
        sampler=sampler,
        overlap=1 - about["hop"] / model.segment,
        limit_vocals=False,
        **options,
    )
    assert rate == 44_100
    assert np.abs(expected.vocals).max() > 0.01
    np.testing.assert_allclose(vocals, expected.vocals, atol=1e-5, rtol=1e-5)


def test_the_script_says_what_rate_it_needs(tmp_path, params, monkeypatch):
    export_sampler(micro.MODEL, params, tmp_path, settings=PRESETS["fast"], platforms=["cpu"])
    sf.write(tmp_path / "song.wav", np.zeros((100, 2)), 48_000)
    arguments = [str(tmp_path), str(tmp_path / "song.wav"), str(tmp_path / "vocals.wav")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit, match="48000 Hz, expected 44100 Hz"):
        runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platforms": []}, "platforms is empty; expected one or more of cpu, cuda, rocm, tpu"),
        ({"platforms": ["cpu", "cpu"]}, "platforms is cpu cpu; expected"),
        ({"platforms": ["gpu"]}, "platforms is gpu; expected"),
        ({"batch_size": 0}, "batch size is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_exported(tmp_path, params, options, message):
    with pytest.raises(UserError, match=message):
        export_sampler(micro.MODEL, params, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, params, capsys):
    save_model(tmp_path / "model", micro.MODEL, params)
    command = ["export", "--model", str(tmp_path / "model"), "--sampler", "direct"]
    cli.main([*command, "--out", str(tmp_path / "out"), "--platforms", "cpu", "tpu"])
    line = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: direct for cpu, tpu, 0." in line
    assert deserialize(tmp_path / "out").platforms == ("cpu", "tpu")
    with pytest.raises(SystemExit) as error:
        cli.main([*command, "--out", str(tmp_path / "new"), "--platforms", "gpu"])
    assert error.value.code == 2
    assert "gpu" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
