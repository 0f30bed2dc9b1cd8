"""The command `diffsep`: separate audio files, on a page too, list models, export."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import diffsep_jax
from diffsep_jax.arguments import arguments
from diffsep_jax.errors import EXIT_USER_ERROR, one_line_errors

COMMANDS = ("separate", "app", "models", "info", "export")

FIRST_SCREEN = """\
usage: diffsep INPUT... [--out FOLDER] [options]

Separate songs into vocals and accompaniment. Writes FOLDER/<song>/vocals.wav
and accompaniment.wav: as long as the song, at its sample rate. Their sum is the
song. Earlier results are replaced.

What to separate
  INPUT...             audio files (wav, flac, ogg, mp3, m4a, ...) and folders
  --start TIME         start of a part: seconds, or as 1:30 (default: 0)
  --duration TIME      its length (default: up to the end)
  --stream N           audio stream of a film (default: the default one)
Quality
  --preset NAME        fast, balanced or best; by default the model's own
  --model MODEL        one of `diffsep models`, or a folder (default: small)
  --seed N             another draw of the vocals
Files
  -o, --out FOLDER     where the results go (default: separated)
  --stems STEM...      vocals, accompaniment or both (the default)
  --format FORMAT      wav (the default), flac, mp3, ogg, opus or m4a
  --bitrate-kbps KBPS  of mp3 (default: 320), opus and m4a (256)
Many files
  --list FILE          a text file with more inputs, one on each line
  --resume             skip songs whose results exist
Machine
  --device NAME        cpu, gpu, tpu or auto (the default)
  --batch-size N       chunks computed at once: less memory, or more speed
  --progress STYLE     bar, quiet or json

diffsep --help-all lists all options; docs/separate.md explains them.
Other commands: diffsep app, diffsep models, diffsep info, diffsep export,
diffsep --version.
"""


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
            if not given:
                print(FIRST_SCREEN, end="", file=sys.stderr)
                raise SystemExit(EXIT_USER_ERROR)
            if given[0] not in (*COMMANDS, "--tyro-print-completion"):
                given = ["separate", *given]
            if given[0] == "separate" and {"--help", "-h"} & {*given}:
                print(FIRST_SCREEN, end="")
                return
            _run(given)
    except SystemExit as end:
        if args is None and isinstance(end.code, int) and end.code:
            # All files are cleaned up. Python's own exit would wait for the devices and the reader.
            sys.stderr.flush()
            os._exit(end.code)
        raise


def _run(given: Sequence[str]) -> None:
    import tyro  # with the commands it is slow to import, and help needs none of them

    from diffsep_jax.commands.app import App, serve
    from diffsep_jax.commands.export import Export, export
    from diffsep_jax.commands.info import Info, Models, list_models, show_info
    from diffsep_jax.commands.separate import Separate, separate

    commands: dict[str, tuple[type, Callable[[Any], None]]] = {
        "separate": (Separate, separate),
        "app": (App, serve),
        "models": (Models, list_models),
        "info": (Info, show_info),
        "export": (Export, export),
    }
    config = (tyro.conf.DisallowNone, tyro.conf.OmitArgPrefixes)
    if given[0] not in commands:  # --tyro-print-completion SHELL
        options: dict[str, Any] = {name: each for name, (each, _) in commands.items()}
        tyro.extras.subcommand_cli_from_dict(options, args=given, prog="diffsep", config=config)
        return
    name, *args = ["--help" if each == "--help-all" else each for each in given]
    kind, run = commands[name]
    has_help = name != "separate" or "--help" in args  # tyro's hint would name the first screen
    try:
        options = tyro.cli(
            kind, args=args, prog=f"diffsep {name}", config=config, add_help=has_help
        )
    except SystemExit:
        if not has_help:
            print("diffsep --help-all lists all options", file=sys.stderr)
        raise
    run(options)


if __name__ == "__main__":
    main()
