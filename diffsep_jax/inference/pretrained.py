"""Model directories: `config.json` + `model.safetensors`, all that inference needs.

A model is named by a folder of `diffsep_jax/pretrained/`, which the package ships, by the path of a
directory, or by the URL of one (see `inference.remote`).
"""

import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.inference.remote import CONFIG_FILE, WEIGHTS_FILE, fetch
from diffsep_jax.inference.settings import DEFAULT_PRESET, PRESETS, Preset
from diffsep_jax.models.model import FORMAT, Params, SeparationModel, model_from_json, model_to_json
from diffsep_jax.urls import is_url

StoredDtype = Literal["float32", "float16"]

# Needed in training only.
_TRAINING_ONLY = "conditioner/latent_head/"

# A field of the config: the model's default preset.
_PRESET = "default_preset"

# A field of the config: SHA-256 of the model's fields and of the parameters' names and shapes. If
# it matches, the two files fit; otherwise both networks are traced to check that, which takes 1 s.
_LAYOUT = "layout"


def known_models() -> list[str]:
    """Names of the models that the package ships."""
    return sorted(entry.name for entry in _shipped().iterdir() if (entry / CONFIG_FILE).is_file())


def model_file(name: str, file: str) -> pathlib.Path:
    """The path of CONFIG_FILE or WEIGHTS_FILE of a model; one at a URL is fetched first.

    Raises UserError if there is no such model.
    """
    if is_url(name):
        return fetch(name, file)
    if name.lower() in known_models():
        return _shipped() / name.lower() / file
    directory = pathlib.Path(name)
    if not directory.is_dir():
        raise UserError(
            f"unknown model {name!r}; expected a model directory, hf://user/name, another URL, or"
            f" one of {', '.join(known_models())}"
        )
    for needed in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / needed).is_file():
            raise UserError(
                f"{directory}: has no {needed}; expected a model directory of {CONFIG_FILE} and"
                f" {WEIGHTS_FILE}, such as WORKDIR/model of train.py"
            )
    return directory / file


def load_model(name: str) -> tuple[SeparationModel, Params]:
    """The model and its float32 parameters, on the host.

    Raises UserError if there is no such model, a file is damaged, or the two files do not match.
    """
    model, config = _read_config(name)
    weights_path = model_file(name, WEIGHTS_FILE)
    try:
        with safetensors.safe_open(weights_path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: f"{part.get_dtype()} {list(part.get_shape())}"
                for name, part in slices.items()
            }
            if config.get(_LAYOUT) != _layout_digest(config, found):
                _check_layout(weights_path, model, found)
            tensors = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in found}
            return model, unflatten_dict(tensors, sep="/")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{weights_path}: not a readable safetensors file ({error})") from None


def load_config(name: str) -> SeparationModel:
    """The model without its parameters, which are not read. Raises UserError like `load_model`."""
    return _read_config(name)[0]


def load_default_preset(name: str) -> Preset:
    """The model's default preset. Raises UserError like `load_config`."""
    preset: Preset = _read_config(name)[1][_PRESET]
    return preset


def _read_config(name: str) -> tuple[SeparationModel, dict[str, Any]]:
    config_path = model_file(name, CONFIG_FILE)
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        preset = config.setdefault(_PRESET, DEFAULT_PRESET)
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"{_PRESET} is {preset!r}; expected one of {', '.join(PRESETS)}")
        return model_from_json(_model_fields(config)), config
    except OSError as error:
        raise UserError(f"{config_path}: cannot be read: {error.strerror}") from None
    except (TypeError, ValueError) as error:  # bad JSON and bad Unicode are ValueErrors
        raise UserError(f"{config_path}: not a model's config ({error})") from None


def save_model(
    directory: pathlib.Path,
    model: SeparationModel,
    params: Params,
    *,
    default_preset: Preset = DEFAULT_PRESET,
    dtype: StoredDtype = "float32",
) -> None:
    """Writes a model directory; each file appears whole or not at all.

    float16 halves the file and rounds the parameters, which are float32 again when loaded.
    Raises UserError if it cannot be written.
    """
    stored = stored_params(params, dtype)
    config = model_to_json(model)
    layout = _layout(stored, {"float32": "F32", "float16": "F16"}[dtype])
    config |= {_PRESET: default_preset, _LAYOUT: _layout_digest(config, layout)}
    text = json.dumps(config, indent=2) + "\n"
    weights = safetensors.numpy.save(stored, metadata={"format": FORMAT})
    write_bytes(directory / WEIGHTS_FILE, weights)
    write_bytes(directory / CONFIG_FILE, text.encode())


def stored_params(params: Params, dtype: StoredDtype = "float32") -> dict[str, np.ndarray]:
    """The parameters in `model.safetensors` by their names there: those that inference reads."""
    return {
        name: np.asarray(leaf, dtype=dtype, order="C") for name, leaf in _stored(params).items()
    }


def _layout(params: Mapping[str, Any], dtype: str = "F32") -> dict[str, str]:
    """Type and shape of each parameter, in the notation of safetensors."""
    return {name: f"{dtype} {list(leaf.shape)}" for name, leaf in params.items()}


def _layout_digest(config: Mapping[str, Any], layout: Mapping[str, str]) -> str:
    text = json.dumps([_model_fields(config), layout], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _model_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in (_LAYOUT, _PRESET)}


def _check_layout(path: pathlib.Path, model: SeparationModel, found: Mapping[str, str]) -> None:
    """Raises UserError unless these are the model's parameters."""
    half = all(layout.startswith("F16 ") for layout in found.values())
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    expected = _layout(_stored(params), "F16" if half else "F32")
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{path}: does not fit {CONFIG_FILE}: {name} is {found.get(name, 'missing')};"
                f" expected {expected.get(name, 'nothing')}"
            )


def _stored(params: Params) -> dict[str, Any]:
    flat = flatten_dict(params, sep="/").items()
    return {name: leaf for name, leaf in flat if not name.startswith(_TRAINING_ONLY)}


def _shipped() -> pathlib.Path:
    return pathlib.Path(str(importlib.resources.files("diffsep_jax"))) / "pretrained"
