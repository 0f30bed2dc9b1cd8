"""The command line, read and checked alike by all commands."""

import os
import re
import sys
from collections.abc import Sequence

from diffsep_jax.errors import UserError

URL = r"[A-Za-z][A-Za-z0-9+.-]*://"
"""How a URL begins."""

_MODEL_OPTIONS = ("--model", "--init-from", "--init_from")


def arguments(given: Sequence[str] | None = None) -> list[str]:
    """The arguments, by default this process's, with ~ expanded: shells leave it in --out=~/x.

    Raises UserError for an empty value, which would mean the current folder, and for a URL where no
    model is expected, as it would become local folders.
    """
    parsed = []
    previous = ""
    for argument in sys.argv[1:] if given is None else given:
        option, equals, value = argument.partition("=")
        if not (equals and re.fullmatch(r"--[\w.-]+", option)):
            option, equals, value = "", "", argument
        if not value:
            name = f"{option} is ''" if option else "an argument is ''"
            raise UserError(f"{name}; expected a value. Is a shell variable unset?")
        if re.match(URL, value) and (option or previous) not in _MODEL_OPTIONS:
            raise UserError(f"{argument}: is a URL; expected a local path. Copy or mount the data")
        previous = argument
        parsed.append(option + equals + os.path.expanduser(value))
    return parsed
