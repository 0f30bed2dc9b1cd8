"""A page of a finished evaluation:  python -m diffsep_jax.evaluation.report OUT [--html FILE]"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import tyro

from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.report import write_report
from diffsep_jax.evaluation.result_files import REPORT_FILE, read_result


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes one HTML page of an evaluation: numbers, plots, and tracks to hear."""

    out: tyro.conf.Positional[pathlib.Path]
    """The folder that eval.py wrote."""

    html: pathlib.Path | None = None
    """The page; unset: report.html in OUT."""


def main(args: Sequence[str]) -> None:
    """Runs the command. Raises UserError if there is no result, or the page cannot be written."""
    command = tyro.cli(Report, args=args, prog="python -m diffsep_jax.evaluation.report")
    path = command.html or command.out / REPORT_FILE
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of an HTML file")
    write_report(path, read_result(command.out), command.out)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
