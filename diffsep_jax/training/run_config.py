"""The config of a run, kept in its work folder: a run goes on, and is exported, as what it is."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.models.model import SeparationModel, model_from_json, model_to_json
from diffsep_jax.runtime import is_primary

FILE_NAME = "run_config.json"


def keep_run_config(
    workdir: pathlib.Path,
    model: SeparationModel,
    fixed: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> list[str]:
    """Writes a new run's config into its folder, or compares it with the one there.

    The model and the `fixed` values must be what the run was started with: some of them (attention
    heads, the seed) leave every shape as it is. Raises UserError naming those that differ.
    `settings` may change; returns a line for each that did.
    """
    path = workdir / FILE_NAME
    # As JSON gives it back: tuples become lists, paths are text.
    ours = json.loads(
        json.dumps(
            {"model": model_to_json(model), "fixed": fixed, "settings": settings}, default=str
        )
    )
    changes = []
    if path.exists():
        theirs = _read(path)
        differing = [
            f"{name} is {there} there and {here} in this config"
            for part in ("model", "fixed")
            for name, there, here in _differences(theirs[part], ours[part])
        ]
        if differing:
            raise UserError(
                f"{workdir}: the run there is another: {'; '.join(differing)}; use the config that"
                " the run was started with or another --workdir"
            )
        changes = [
            f"{name} was {there}, now {here}"
            for name, there, here in _differences(theirs["settings"], ours["settings"])
        ]
    if is_primary():
        write_bytes(path, (json.dumps(ours, indent=2) + "\n").encode())
    return changes


def read_model_config(workdir: pathlib.Path) -> SeparationModel:
    """The model of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / FILE_NAME
    if not path.is_file():
        raise UserError(f"{workdir}: no {FILE_NAME} here, so no run to export; train first")
    try:
        return model_from_json(_read(path)["model"])
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a run's config ({str(error).splitlines()[0]})") from None


def has_untrained_generator(workdir: pathlib.Path) -> bool:
    """Whether the run in `workdir` freezes a generator that started at random."""
    config = _read(workdir / FILE_NAME)
    frozen = config["settings"].get("train", {}).get("freeze") == "generator"
    return frozen and "init_from" not in config["fixed"]


def _differences(theirs: dict, ours: dict) -> list[tuple[str, Any, Any]]:
    there, here = flatten_dict(theirs, sep="."), flatten_dict(ours, sep=".")
    return [
        (name, there.get(name, "missing"), here.get(name, "missing"))
        for name in sorted(there.keys() | here.keys())
        if there.get(name, "missing") != here.get(name, "missing")
    ]


def _read(path: pathlib.Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    parts = ("model", "fixed", "settings")
    if not isinstance(config, dict) or not all(isinstance(config.get(p), dict) for p in parts):
        raise UserError(f"{path}: not a run's config; restore it or use another --workdir")
    return config
