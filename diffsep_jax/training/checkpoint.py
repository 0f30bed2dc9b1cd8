"""Checkpoints of the training state, by Orbax V1: the only file that knows Orbax.

A save copies the state to the host and writes in the background, to a temporary name that is
renamed when whole. Restoring always goes into the shardings of the run that restores.
"""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from diffsep_jax.errors import UserError
from diffsep_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of one run, in `directory`; the latest `keep` of them are kept.

    `keep=None` only reads: a run that is saving there now is not disturbed.
    """

    def __init__(self, directory: pathlib.Path, keep: int | None) -> None:
        self._directory = directory
        policies = ocp.training.preservation_policies
        try:
            self._checkpointer = ocp.training.Checkpointer(
                directory.absolute(),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.PreserveAll()
                if keep is None
                else policies.LatestN(keep),
                cleanup_tmp_directories=keep is not None,
            )
        except OSError as error:
            raise UserError(
                f"{directory}: cannot write checkpoints here ({error.strerror}); choose another"
                " --workdir"
            ) from None

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState) -> None:
        """Saves in the background; waits only for an earlier save that is still going on."""
        step = int(state.step)
        if step != self.latest_step:
            self._checkpointer.save_async(step, state._asdict())

    def restore(self, abstract_state: TrainState) -> TrainState:
        """The newest checkpoint, in the shapes, types and shardings of `abstract_state`.

        Raises UserError if it is of another network.
        """
        return TrainState(**self._load(abstract_state._asdict()))

    def restore_ema(self, abstract_params: Any) -> Any:
        """Only the averaged parameters of the newest checkpoint."""
        return self._load({"ema": abstract_params}, partial=True)["ema"]

    def _load(self, abstract: dict[str, Any], partial: bool = False) -> dict[str, Any]:
        step = self.latest_step
        if step is None:
            raise UserError(f"{self._directory}: no checkpoint here; train first")
        self._check_shapes(step, abstract)
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            return self._checkpointer.load(step, abstract)

    def _check_shapes(self, step: int, abstract: dict[str, Any]) -> None:
        saved = _shapes(self._checkpointer.metadata(step).metadata)
        saved = {name: shape for name, shape in saved.items() if name.split("/")[0] in abstract}
        wanted = _shapes(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"{self._directory / str(step)}: this checkpoint is of another network: {name}"
                    f" is {saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} in"
                    " this config; use the config that the run was started with or another"
                    " --workdir"
                )

    def close(self) -> None:
        """Waits until everything is written."""
        self._checkpointer.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path): (
            tuple(leaf.shape)
        )
        for path, leaf in leaves
    }
