"""The model of a run, kept in its work folder: a run goes on, and is exported, as what it is."""

import json
import pathlib

from diffsep_jax.errors import UserError
from diffsep_jax.model_config import flatten, model_from_json, model_to_json
from diffsep_jax.output import write_bytes
from diffsep_jax.separation_model import SeparationModel

FILE_NAME = "model_config.json"


def keep_model_config(workdir: pathlib.Path, model: SeparationModel) -> None:
    """Writes the model's fields into a new run's folder, or compares them with those there.

    Raises UserError, naming a field that differs, if the run there is of another model: some fields
    (attention heads, `estimate_error`) leave every shape as it is.
    """
    path = workdir / FILE_NAME
    ours = json.loads(json.dumps(model_to_json(model)))
    if not path.exists():
        write_bytes(path, (json.dumps(ours, indent=2) + "\n").encode())
        return
    theirs = flatten(_read(path))
    for name, value in flatten(ours).items():
        if theirs.get(name) != value:
            raise UserError(
                f"{workdir}: the run there is of another network: {name.replace('/', '.')} is"
                f" {theirs.get(name)} there and {value} in this config; use the config that the run"
                " was started with or another --workdir"
            )


def read_model_config(workdir: pathlib.Path) -> SeparationModel:
    """The model of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / FILE_NAME
    if not path.is_file():
        raise UserError(f"{workdir}: no {FILE_NAME} here, so no run to export; train first")
    try:
        return model_from_json(_read(path))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a model's config ({error})") from None


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
