"""Model directories: what is written is what is read, and what is damaged is refused."""

import dataclasses
import json
import re

import jax
import micro
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

import configs
from diffsep_jax.errors import UserError
from diffsep_jax.inference import pretrained
from diffsep_jax.inference.pretrained import load_model, save_model
from diffsep_jax.models.compute import Compute


@pytest.fixture(scope="module")
def params():
    return micro.random_params(micro.MODEL)


@pytest.fixture
def directory(tmp_path, params):
    save_model(tmp_path / "model", micro.MODEL, params)
    return tmp_path / "model"


def test_round_trip(directory, params):
    model, loaded = load_model(str(directory))
    assert model == micro.MODEL
    latent_head = params["conditioner"].pop("latent_head")
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    params["conditioner"]["latent_head"] = latent_head
    assert sorted(p.name for p in directory.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", configs.NAMES)
def test_every_config_survives_json(name):
    # How it is computed is no part of it.
    model = dataclasses.replace(configs.get(name).model, compute=Compute())
    text = json.dumps(pretrained.model_to_json(model))
    assert pretrained.model_from_json(json.loads(text)) == model


def test_an_unknown_name_lists_the_known_ones():
    assert "small" in pretrained.known_models()
    with pytest.raises(UserError, match=r"unknown model 'smal'.*small"):
        load_model("smal")


def test_the_shipped_model_fits_its_limits():
    _, params = load_model("small")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 14_000_000
    folder = pretrained.model_file("small", "config.json").parent
    assert (folder / "model.safetensors").stat().st_size < 30e6
    assert (folder / "README.md").is_file()


def damage(name, change):
    return pytest.param(name, change, id=name + "-" + change.__name__)


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def other_format(path):
    path.write_text(path.read_text().replace("diffsep-jax 1", "diffsep-jax 999"))


def unknown_field(path):
    path.write_text(path.read_text().replace('"use_mixture"', '"use_mixtur"'))


def no_object(path):
    path.write_text("[1, 2]")


def bad_groups(path):
    path.write_text(re.sub('"groups": [0-9]+', '"groups": 7', path.read_text()))


def another_width(path):
    path.write_text(path.read_text().replace('"embedding_width": 16', '"embedding_width": 24'))


def lost_tensor(path):
    tensors = safetensors.numpy.load_file(path)
    tensors.popitem()
    safetensors.numpy.save_file(tensors, path)


def half_precision(path):
    tensors = safetensors.numpy.load_file(path)
    tensors["generator/conv_in/bias"] = tensors["generator/conv_in/bias"].astype(np.float16)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        damage("config.json", remove),
        damage("config.json", truncate),
        damage("config.json", other_format),
        damage("config.json", unknown_field),
        damage("config.json", no_object),
        damage("config.json", bad_groups),
        damage("config.json", another_width),
        damage("model.safetensors", remove),
        damage("model.safetensors", truncate),
        damage("model.safetensors", lost_tensor),
        damage("model.safetensors", half_precision),
    ],
)
def test_a_damaged_directory_is_refused_by_name(directory, name, change):
    change(directory / name)
    with pytest.raises(UserError) as caught:
        load_model(str(directory))
    message = str(caught.value)
    assert str(directory) in message
    assert "\n" not in message
    if change is half_precision:
        assert re.search(r"conv_in/bias is F16 \[.*F32 \[", message)


def test_float16_halves_the_file_and_rounds(tmp_path, directory, params):
    save_model(tmp_path / "half", micro.MODEL, params, dtype="float16")
    whole, half = (d / "model.safetensors" for d in (directory, tmp_path / "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded, exact = (
        flatten_dict(load_model(str(folder))[1], sep="/")
        for folder in (tmp_path / "half", directory)
    )
    for name, leaf in exact.items():
        found = loaded[name]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, leaf.astype(np.float16).astype(np.float32))
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    del config["layout"]  # a file that was written by hand
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    load_model(str(tmp_path / "half"))
