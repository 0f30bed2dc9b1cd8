"""Model directories: what is written is what is read, and what is damaged is refused."""

import json

import jax
import micro
import numpy as np
import pytest
import safetensors.numpy

import configs
from diffsep_jax.errors import UserError
from diffsep_jax.inference import pretrained
from diffsep_jax.inference.pretrained import load_model, save_model


@pytest.fixture(scope="module")
def params():
    return jax.device_get(jax.jit(micro.MODEL.init)(jax.random.key(0)))


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
    model = configs.get(name).model
    text = json.dumps(pretrained.model_to_json(model))
    assert pretrained.model_from_json(json.loads(text)) == model


def test_an_unknown_name_lists_the_known_ones():
    assert "small" in pretrained.known_models()
    with pytest.raises(UserError, match=r"unknown model 'smal'.*small"):
        load_model("smal")


def test_the_shipped_model_fits_its_limits():
    _, params = load_model("small")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 4_000_000
    folder = pretrained.model_dir("small")
    assert (folder / "model.safetensors").stat().st_size < 16e6
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


def another_width(path):
    path.write_text(path.read_text().replace('"embedding_width": 16', '"embedding_width": 24'))


def lost_tensor(path):
    tensors = safetensors.numpy.load_file(path)
    tensors.popitem()
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        damage("config.json", remove),
        damage("config.json", truncate),
        damage("config.json", other_format),
        damage("config.json", unknown_field),
        damage("config.json", another_width),
        damage("model.safetensors", remove),
        damage("model.safetensors", truncate),
        damage("model.safetensors", lost_tensor),
    ],
)
def test_a_damaged_directory_is_refused_by_name(directory, name, change):
    change(directory / name)
    with pytest.raises(UserError) as caught:
        load_model(str(directory))
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)
