"""The command `diffsep`: separate audio files, list models, describe the machine, export."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

import diffsep_jax
from diffsep_jax.arguments import arguments
from diffsep_jax.commands.export import Export, export
from diffsep_jax.commands.info import Info, show_info
from diffsep_jax.commands.models import Models, list_models
from diffsep_jax.commands.separate import Separate, separate
from diffsep_jax.errors import one_line_errors

COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "separate": (Separate, separate),
    "models": (Models, list_models),
    "info": (Info, show_info),
    "export": (Export, export),
}
"""The options of each, and the function that takes them."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command; `args` are the process's own by default. Bad input ends with status 2.

    Without the name of a command it is `separate`.
    """
    try:
        with one_line_errors():
            given = arguments(args)
            if given == ["--version"]:
                print(f"diffsep {diffsep_jax.__version__}")
                return
            if given and given[0] not in (*COMMANDS, "--help", "-h", "--tyro-print-completion"):
                given = ["separate", *given]
            command = tyro.extras.subcommand_cli_from_dict(
                {name: options for name, (options, _) in COMMANDS.items()},
                args=given,
                prog="diffsep",
                description="Separate singing from music with a diffusion model."
                " `diffsep song.mp3` is short for `diffsep separate song.mp3`;"
                " options: diffsep separate --help.",
            )
            dict(COMMANDS.values())[type(command)](command)
    except SystemExit as end:
        if args is None and isinstance(end.code, int) and end.code:
            # All files are cleaned up. Python's own exit would wait for the devices and the reader.
            sys.stderr.flush()
            os._exit(end.code)
        raise


if __name__ == "__main__":
    main()
