"""Errors that are the user's to mend: one clear line, no traceback."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Bad input. The message is one line: what was given, what was expected, what to do."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command's main function: a `UserError` becomes one line and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
