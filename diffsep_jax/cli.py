"""The command `diffsep`: separate audio files, list models, compile ahead, export."""

import dataclasses
import importlib.resources
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.console
import rich.progress
import tyro

from diffsep_jax.audio import AudioFile
from diffsep_jax.commands.compile import Compile, compile_programs
from diffsep_jax.commands.export import Export, export
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import (
    DEFAULT_OVERLAP,
    STEMS,
    Track,
    check_overlap,
    check_same_length,
    measure,
)
from diffsep_jax.output import check_writable

if TYPE_CHECKING:
    from diffsep_jax.inference.separator import Separator

# JAX and all that needs it are imported in the functions: help and bad options answer at once.


@dataclasses.dataclass(frozen=True)
class Separate:
    """Take the singing out of songs.

    Writes OUT/<name of the input>/vocals.wav and accompaniment.wav: float32, with the input's own
    sample rate, length and channels. The two add up to the input. Earlier results are replaced.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Audio files, mono or stereo: wav, flac, ogg, mp3, m4a, mp4 and what else FFmpeg reads."""

    out: Path
    """Folder for the results; it is made if it does not exist."""

    model: str = "small"
    """Name of a model (see `diffsep models`) or a model directory."""

    settings: Annotated[SamplerSettings, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SamplerSettings
    )

    refine: Path | None = None
    """Vocals of the one INPUT to work over, from here or elsewhere; with --start-sigma below 1."""

    overlap: float = DEFAULT_OVERLAP
    """Share of each chunk that is cross-faded with the next, 0 to 0.5."""

    batch_size: int = 4
    """Chunks separated at once: changes speed and memory, not the result."""


@dataclasses.dataclass(frozen=True)
class Models:
    """List the models that come with the package."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command; `args` are the process's own by default. Bad input ends with status 2."""
    commands = (
        Annotated[Separate, tyro.conf.subcommand(name="separate")]
        | Annotated[Models, tyro.conf.subcommand(name="models")]
        | Annotated[Compile, tyro.conf.subcommand(name="compile")]
        | Annotated[Export, tyro.conf.subcommand(name="export")]
    )
    with one_line_errors():
        command = tyro.cli(
            commands,
            args=args,
            prog="diffsep",
            description="Separate singing from music with a diffusion model.",
        )
        if isinstance(command, Separate):
            separate(command)
        elif isinstance(command, Compile):
            compile_programs(command)
        elif isinstance(command, Export):
            export(command)
        else:
            list_models()


def separate(command: Separate) -> None:
    """`diffsep separate`. All that can be wrong is found before the model is loaded."""
    check_overlap(command.overlap)
    if command.batch_size < 1:
        raise UserError(f"batch size {command.batch_size}, expected at least 1")
    folders = _result_folders(command.inputs, command.out)
    if command.refine is not None:
        command.settings.check_refines()
        if len(command.inputs) > 1:
            raise UserError(f"{len(command.inputs)} inputs, expected one: --refine is one file's")
    tracks = [measure(AudioFile(path)) for path in command.inputs]
    guess = None
    if command.refine is not None:
        guess = measure(AudioFile(command.refine))
        check_same_length(tracks[0], guess)
    check_writable(command.out)

    from diffsep_jax.compilation_cache import use_compilation_cache
    from diffsep_jax.inference.separator import Separator

    use_compilation_cache()
    separator = Separator.from_pretrained(command.model, batch_size=command.batch_size)
    for track, folder in zip(tracks, folders, strict=True):
        start = time.perf_counter()
        _separate_with_bar(separator, track, folder, guess, command)
        seconds = time.perf_counter() - start
        print(
            f"{track.source.name} -> {folder}: {track.seconds:.1f} s of audio in {seconds:.1f} s, "
            f"real-time factor {seconds / track.seconds:.2f}"
        )


def list_models() -> None:
    """`diffsep models`: a name and the first line of its card's text on each line."""
    from diffsep_jax.inference.pretrained import known_models

    for name in known_models():
        card = importlib.resources.files("diffsep_jax") / "pretrained" / name / "README.md"
        print(f"{name:12} {_first_sentence(card.read_text())}" if card.is_file() else name)


def _result_folders(inputs: Sequence[Path], out: Path) -> list[Path]:
    if not inputs:
        raise UserError("no input, expected at least one audio file")
    folders: dict[str, Path] = {}
    originals = {path.resolve() for path in inputs}
    for path in inputs:
        key = path.stem.casefold()  # one folder, on the file systems that ignore case
        if key in folders:
            raise UserError(
                f"{path}: a second input named {path.stem!r}, expected names that differ, "
                "as each names the folder of its results; separate them into two folders"
            )
        folders[key] = out / path.stem
        for stem in STEMS:
            if (result := folders[key] / f"{stem}.wav").resolve() in originals:
                raise UserError(
                    f"{result}: is an input and would be replaced; choose another --out"
                )
    return list(folders.values())


def _separate_with_bar(
    separator: "Separator", track: Track, folder: Path, guess: Track | None, command: Separate
) -> None:
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(folder.name, total=None)
        separator.separate_file(
            track,
            folder,
            overlap=command.overlap,
            refine=guess,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            **dataclasses.asdict(command.settings),
        )


def _first_sentence(card: str) -> str:
    """The first line of text of a model card, past its front matter and headings."""
    if card.startswith("---\n"):
        card = card.split("\n---\n", 1)[-1]
    lines = (line.strip() for line in card.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


if __name__ == "__main__":
    main()
