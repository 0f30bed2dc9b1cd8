"""Debian packages as sources of recordings: downloaded by apt-get and unpacked, not installed."""

import io
import os
import shutil
import subprocess
import urllib.parse
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.output import make_folder, write_errors


class Package(NamedTuple):
    """An unpacked package."""

    name: str
    version: str
    root: Path

    def find(self, pattern: str) -> list[Path]:
        """Files that match `pattern`, sorted. Raises `UserError` where there are none."""
        found = sorted(self.root.glob(pattern), key=str)
        if not found:
            raise self._missing(pattern)
        return found

    def read(self, file: str) -> tuple[Float[np.ndarray, "time channel"], int]:
        """An audio file and its rate in Hz; "ARCHIVE!MEMBER" lies in a zip archive.

        Raises `UserError` where it is missing or damaged.
        """
        path, _, member = file.partition("!")
        if not (self.root / path).is_file():
            raise self._missing(file)
        try:
            if member:
                with zipfile.ZipFile(self.root / path) as archive:
                    return soundfile.read(io.BytesIO(archive.read(member)), always_2d=True)
            return soundfile.read(self.root / path, always_2d=True)
        except KeyError:
            raise self._missing(file) from None
        except (soundfile.LibsndfileError, zipfile.BadZipFile, OSError):
            raise UserError(
                f"{self.root / path}: damaged; delete {self.root} and run the command again"
            ) from None

    def _missing(self, file: str) -> UserError:
        return UserError(
            f"package {self.name} {self.version}: has no {file}; "
            "the development set needs a version that has it"
        )


def fetch(name: str, folder: Path) -> Package:
    """A package unpacked in `folder`, downloaded if it is not there yet.

    Two builds at once must not share the folder. Raises `UserError`: no apt, no such package, no
    network, a damaged package, a full disk.
    """
    make_folder(folder)
    unpacked = sorted(path for path in folder.glob(f"{name}_*") if path.is_dir())
    if unpacked:
        root = unpacked[-1]
    else:
        debs = sorted(folder.glob(f"{name}_*.deb"))
        root = _unpack(debs[-1] if debs else _download(name, folder))
    return Package(name, urllib.parse.unquote(root.name.split("_")[1]), root)


def _download(name: str, folder: Path) -> Path:
    with write_errors(folder):
        part = _empty(folder / f".{name}.download")
    # Otherwise apt-get, run by root, warns that its own user cannot write here.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name]
    failure = _run(command, part)
    debs = sorted(part.glob("*.deb"))
    if failure is not None or not debs:
        shutil.rmtree(part)
        raise UserError(
            f"package {name}: cannot be downloaded: {failure or 'apt-get wrote no file'}; "
            "is there a network, and has apt-get update been run?"
        )
    deb = folder / debs[0].name
    os.replace(debs[0], deb)
    part.rmdir()
    return deb


def _unpack(deb: Path) -> Path:
    root = deb.with_suffix("")
    with write_errors(root):
        part = _empty(deb.with_name(f".{root.name}.unpack"))
    failure = _run(["dpkg-deb", "-x", str(deb.absolute()), "."], part)
    if failure is not None:
        shutil.rmtree(part)
        if "No space left" in failure:
            raise UserError(f"{root}: cannot be unpacked: no space left on the disk")
        raise UserError(f"{deb}: damaged ({failure}); delete it and run the command again")
    os.replace(part, root)
    return root


def _empty(folder: Path) -> Path:
    """An empty folder in place of what an interrupted run may have left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _run(command: list[str], folder: Path) -> str | None:
    """Runs a command in a folder; None if it succeeds, else its error message, one line."""
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]}: not found; the development set is made of Debian packages and needs "
            "Debian, a system derived from it, or a container of one"
        ) from None
    if result.returncode == 0:
        return None
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")] or lines
    return errors[0] if errors else f"{command[0]} ended with status {result.returncode}"
