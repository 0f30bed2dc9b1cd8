"""WORKDIR/run_config.json: a run's model and settings, checked on resuming, read on export."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.models.model import SeparationModel, model_from_json, model_to_json
from diffsep_jax.runtime import is_primary
from diffsep_jax.training.config import TrainConfig

FILE_NAME = "run_config.json"


def run_config(
    model: SeparationModel,
    config: TrainConfig,
    *,
    batch_size: int,
    init_from: str | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of the file as JSON values.

    `model` and `fixed` cannot change during a run: some of their values (attention heads, the seed)
    would leave all shapes as they are. `settings` may.
    """
    fixed: dict[str, Any] = {"train.seed": config.seed, "batch_size": batch_size}
    if config.optimizer.method == "muon":  # its state covers only the matrices that are trained
        fixed |= {"train.optimizer.method": "muon", "train.freeze": config.freeze}
    if init_from is not None:
        fixed["init_from"] = init_from
    content = {"model": model_to_json(model), "fixed": fixed, "settings": settings}
    return json.loads(json.dumps(content, default=str))  # tuples become lists, paths text


def check_run_config(workdir: pathlib.Path, ours: Mapping[str, Any]) -> list[str]:
    """Compares a config with that of the run in `workdir`, if there is one.

    Returns a line for each setting that changed. Raises UserError, naming the values, if the model
    or the fixed values differ.
    """
    if not (workdir / FILE_NAME).exists():
        return []
    theirs = _read(workdir)
    differing = [
        f"{name} is {there} there and {here} in this config"
        for part in ("model", "fixed")
        for name, there, here in differences(theirs[part], ours[part])
    ]
    if differing:
        raise UserError(
            f"{workdir}: the run there differs: {'; '.join(differing)}; use the config that the"
            " run was started with, or another --workdir"
        )
    return [
        f"changed since the run's last start: {name} was {there}, now {here}"
        for name, there, here in differences(theirs["settings"], ours["settings"])
    ]


def write_run_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the file, in process 0."""
    if is_primary():
        write_bytes(workdir / FILE_NAME, (json.dumps(config, indent=2) + "\n").encode())


def read_model_config(workdir: pathlib.Path) -> SeparationModel:
    """The model of the run in `workdir`. Raises UserError if there is none."""
    if not (workdir / FILE_NAME).is_file():
        raise UserError(f"{workdir}: no {FILE_NAME} here, so no run to export; train first")
    config = _read(workdir)
    try:
        return model_from_json(config["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{workdir / FILE_NAME}: not a run's config ({error})") from None


def has_untrained_generator(workdir: pathlib.Path) -> bool:
    """Whether the run in `workdir` freezes a generator that started at random."""
    config = _read(workdir)
    frozen = config["settings"].get("train", {}).get("freeze") == "generator"
    return frozen and "init_from" not in config["fixed"]


def differences(theirs: dict, ours: dict) -> list[tuple[str, Any, Any]]:
    """(name, their value, our value) of all that differ."""
    there, here = flatten_dict(theirs, sep="."), flatten_dict(ours, sep=".")
    names = sorted(there.keys() | here.keys())
    pairs = [(name, there.get(name, "missing"), here.get(name, "missing")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _read(workdir: pathlib.Path) -> dict:
    path = workdir / FILE_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(config[part], dict) for part in ("model", "fixed", "settings")):
            raise ValueError("a part of it is not an object")
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore it or use another --workdir"
        ) from None
