"""The files that a command works on, and the paths of their results."""

import dataclasses
import os
import re
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from diffsep_jax.audio.write import FORMATS
from diffsep_jax.errors import UserError
from diffsep_jax.inference.files import FileJob
from diffsep_jax.runtime import launched_as_one_of_several
from diffsep_jax.urls import is_url

# fmt: off
SUFFIXES = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".avr",
    ".caf", ".dff", ".dsf", ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv",
    ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg", ".mpg", ".mpga", ".mts", ".oga", ".ogg",
    ".ogv", ".opus", ".rf64", ".snd", ".spx", ".ts", ".tta", ".voc", ".w64", ".wav", ".wave",
    ".weba", ".webm", ".wma", ".wmv", ".wv",
})
# fmt: on
"""Endings of the files that are taken from a folder."""

DEFAULT_NAME = "{folder}/{track}/{stem}.{ext}"

_NAME_PARTS = ("folder", "track", "file", "stem", "ext")


class Input(NamedTuple):
    """An audio file, and the folder below a given one where it was found: {folder} in --name.

    Where several folders are given, it begins with that folder's own name.
    """

    path: Path
    folder: Path = Path()


def find_inputs(
    inputs: Sequence[Path], list_file: Path | None = None, *, out: Path | None = None
) -> list[Input]:
    """The files that are given, here or in the list, and those in folders, at any depth, by name.

    Files of a folder are taken by their `SUFFIXES`, and stderr says how many are not. Hidden files
    and folders are skipped, and so is `out` inside a folder, which holds the results of earlier
    runs. Links are followed, and what has several names is taken once. Raises UserError if there is
    no file, a folder or list cannot be read, or `out` is an input.
    """
    named = [*inputs, *_listed(list_file)] if list_file is not None else list(inputs)
    if not named:
        raise UserError("no input; expected at least one audio file, a folder or --list FILE")
    # Unlike Path.is_dir it takes any name.
    folders = {os.path.realpath(path) for path in named if os.path.isdir(path)}
    if out is not None and os.path.realpath(out) in folders:
        raise UserError(
            f"{out}: is an input, and the results in it would be taken for songs the next time;"
            " choose another --out"
        )
    found: dict[str, Input] = {}
    skipped: list[Path] = []
    for path in named:
        if os.path.isdir(path):
            own = Path(os.path.basename(os.path.abspath(path))) if len(folders) > 1 else Path()
            inside = [
                each._replace(folder=own / each.folder) for each in _inside(path, out, skipped)
            ]
            if not inside:
                raise UserError(
                    f"{path}: no file in this folder has the ending of an audio file, such as .wav;"
                    " give others by name"
                )
            for each in inside:
                found.setdefault(os.path.realpath(each.path), each)
        else:
            found.setdefault(os.path.realpath(path), Input(path))
    if skipped:
        print(
            f"note: {len(skipped)} file(s) in folders skipped, such as {skipped[0]}: their names do"
            " not end like an audio file's; files given by name are always read",
            file=sys.stderr,
        )
    return list(found.values())


def plan_jobs(
    inputs: Sequence[Input],
    out: Path,
    *,
    stems: Sequence[str],
    extension: str,
    name: str = DEFAULT_NAME,
    refine: Path | None = None,
) -> list[FileJob]:
    """A job for each input, its results named by the template `name` below `out`.

    Args:
      inputs: from `find_inputs`.
      out: folder of the results.
      stems: those that are wanted.
      extension: of their files, without a dot.
      name: a path with {folder}, {track} (the input's name without its ending), {file} (with its
        ending), {stem} and {ext}.
      refine: vocals to start from: a file, for one input; or the `out` of an earlier run.

    Raises:
      UserError: a bad template; two results with one name; a result that would replace an input;
        no vocals to refine for any input. If only some have none, their jobs fail later.
    """
    _check_name(name, stems)
    if refine is not None and not os.path.isdir(refine) and len(inputs) > 1:
        raise UserError(
            f"{len(inputs)} inputs and {refine} to refine; expected one input, or for --refine the"
            " folder of an earlier run's results"
        )
    earlier_results = refine is not None and os.path.isdir(refine)
    jobs = []
    owners: dict[str, Input] = {}
    originals = {os.path.realpath(each.path) for each in inputs}
    for each in inputs:

        def result(stem: str, extension: str, each: Input = each) -> Path:
            parts = {"folder": str(each.folder), "track": each.path.stem, "file": each.path.name}
            return Path(name.format(**parts, stem=stem, ext=extension))

        outputs = {stem: out / result(stem, extension) for stem in stems}
        for path in outputs.values():
            other = owners.setdefault(str(path).casefold(), each)  # some file systems ignore case
            if other is not each:
                raise UserError(
                    f"{each.path}: its result {path} is also that of {other.path}; expected a"
                    " --name that differs, such as {folder}/{file}/{stem}.{ext}, or another --out"
                )
            if ".." in path.relative_to(out).parts or os.path.realpath(path) in originals:
                raise UserError(
                    f"{each.path}: its result {path} would replace an input or lie outside {out};"
                    " choose another --out or --name"
                )
        guess = refine
        if refine is not None and earlier_results:
            earlier = [refine / result("vocals", extension) for extension in FORMATS]
            guess = next((path for path in earlier if os.path.isfile(path)), earlier[0])
        jobs.append(FileJob(each.path, outputs, guess))
    guesses = [job.refine for job in jobs if job.refine is not None]
    if earlier_results and not any(os.path.isfile(path) for path in guesses):
        raise UserError(
            f"{refine}: no vocals to refine; expected {guesses[0]} or another of"
            f" {', '.join(FORMATS)}; is it the --out of an earlier run with these inputs?"
        )
    return jobs


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `count` runs that share the inputs: it takes every `count`-th, from `index` on."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """A shard such as "3/8", the first being 0/8. UserError for another text."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(int(match[1]), int(match[2])) if match else Shard(0, 0)
    if not shard.index < shard.count:
        raise UserError(f"shard is {text}; expected I/N with I from 0 to N - 1, such as 0/4")
    return shard


def shard_of_job(environment: Mapping[str, str]) -> Shard | None:
    """This process's place in a SLURM job array; None outside of one.

    Raises:
      UserError: it is one of several processes, but the environment does not say which shard.
    """
    if (sign := launched_as_one_of_several(environment)) is not None:
        raise UserError(
            f"{sign}, so this is one of several processes, which would all do the same; expected"
            " --shard I/N for each, or one process in each job of an array"
        )
    if (index := environment.get("JOB_COMPLETION_INDEX")) is not None:
        raise UserError(
            f"JOB_COMPLETION_INDEX is {index}, and Kubernetes does not say of how many; expected"
            f" --shard {index}/N"
        )
    if (task := environment.get("SLURM_ARRAY_TASK_ID")) is None:
        return None
    names = (f"SLURM_ARRAY_TASK_{name}" for name in ("MIN", "MAX", "COUNT"))
    first, last, count = (int(environment.get(name, "0")) for name in names)
    if last - first + 1 != count:
        raise UserError(
            f"SLURM_ARRAY_TASK_ID is {task}, of {count} jobs from {first} to {last}; expected an"
            " array without gaps, or --shard"
        )
    return Shard(int(task) - first, count)


def _listed(list_file: Path) -> list[Path]:
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{list_file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{list_file}: not UTF-8 text; expected one path per line")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    # A name may begin or end in spaces.
    paths = (line if os.path.exists(line) else line.strip() for line in lines)
    listed = [path for path in paths if path and not path.startswith("#")]
    for path in listed:
        if is_url(path):
            raise UserError(
                f"{list_file}: {path} is a URL; expected local paths. Copy or mount the data"
            )
    return [Path(path) for path in listed]


def _inside(folder: Path, out: Path | None, skipped: list[Path]) -> Iterator[Input]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

    passed = {os.path.realpath(folder)} | ({os.path.realpath(out)} if out is not None else set())
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = {name: os.path.realpath(os.path.join(parent, name)) for name in sorted(folders)}
        folders[:] = [
            name for name in real if not name.startswith(".") and real[name] not in passed
        ]
        passed.update(real[name] for name in folders)
        for name in sorted(files):
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in SUFFIXES:
                yield Input(path, Path(parent).relative_to(folder))
            else:
                skipped.append(path)


def _check_name(name: str, stems: Sequence[str]) -> None:
    """UserError unless `name` is a template for paths below --out, another for each stem."""
    parts = dict.fromkeys(_NAME_PARTS, "x")
    try:
        fields = [field[1:] for field in string.Formatter().parse(name) if field[1] is not None]
        known = all(part in parts and not spec and not how for part, spec, how in fields)
        results = {name.format(**parts | {"stem": stem}) for stem in stems} if known else set()
    except ValueError:
        results = set()
    path = Path(name)
    leaves = path.is_absolute() or ".." in path.parts or name.endswith(("/", "."))
    if len(results) < len(stems) or leaves or not name.strip():
        raise UserError(
            f"name is {name!r}; expected a path below --out that differs between stems, such as"
            f" {{track}}/{{stem}}.{{ext}}, made of {', '.join(f'{{{part}}}' for part in parts)}"
        )
