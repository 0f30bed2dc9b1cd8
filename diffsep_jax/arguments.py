"""The command line, read and checked alike by all commands."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from diffsep_jax.errors import UserError
from diffsep_jax.urls import is_url

_DATA_OPTIONS = ("--data.source", "--data.validation-source")  # of one value or several
_URL_OPTIONS = ("--model", "--init-from", "--workdir", *_DATA_OPTIONS)


def arguments(given: Sequence[str] | None = None) -> list[str]:
    """The arguments, by default this process's, with ~ expanded: shells leave it in --out=~/x.

    Raises UserError for an empty value, which would mean the current folder, and for a URL where
    none is expected, as it would become local folders.
    """
    parsed = []
    taker = ""  # the option that an argument is a value of
    for argument in sys.argv[1:] if given is None else given:
        option, equals, value = argument.partition("=")
        if not (equals and re.fullmatch(r"--[\w.-]+", option)):
            option, equals, value = "", "", argument
        if not value:
            name = f"{option} is ''" if option else "an argument is ''"
            raise UserError(f"{name}; expected a value. Is a shell variable unset?")
        if argument.startswith("--"):
            taker = (option or argument).replace("_", "-")
        if is_url(value) and taker not in _URL_OPTIONS:
            raise UserError(f"{argument}: is a URL; expected a local path. Copy or mount the data")
        if (option or not argument.startswith("--")) and taker not in _DATA_OPTIONS:
            taker = ""
        parsed.append(option + equals + os.path.expanduser(value))
    return parsed


def unset(meaning: str, metavar: str | None = None) -> Any:
    """tyro's help for an option that is None by default."""
    import tyro  # slow to import, and the first help screen does without

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {meaning})")
