"""The report on a data set: a table on the terminal and the page."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipelines.inspect import contents, page
from data_pipelines.pipeline import PipelineConfig, check_lengths
from data_pipelines.source import Source
from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.pages import missing_packages


def report(
    source: Source,
    config: PipelineConfig,
    *,
    spec: str,
    segment: int,
    num_steps: int,
    out: Path,
    num_examples: int = 6,
    seed: int = 0,
) -> None:
    """Prints the songs in numbers; writes the page `out` with training examples.

    `seed` selects the examples among those of a training of `num_steps`; `spec` names the songs in
    the heading.

    Raises:
        UserError: the page cannot be written, a song is damaged or shorter than an example.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder; expected the name of an HTML file")
    check_writable(out.parent)
    if missing := missing_packages():
        raise UserError(missing)
    check_lengths(source, config, segment)
    rows = contents.measure(source, spec)
    table = Table(show_header=False)
    for heading, value in rows.items():
        table.add_row(heading, Text(value))
    Console().print(table)
    examples = page.draw(
        source,
        config,
        segment=segment,
        num_steps=num_steps,
        num_examples=num_examples,
        seed=seed,
    )
    data = page.to_html(spec, rows, list(examples)).encode()
    write_bytes(out, data)
    print(f"wrote {out} ({len(data) / 1e6:.1f} MB); open it in a browser")
