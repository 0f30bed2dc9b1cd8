"""Debian packages as sources of recordings: downloaded by apt-get, unpacked, not installed."""

import io
import os
import subprocess
import tempfile
import urllib.parse
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.files import make_folder, user_cache, write_errors


class Package(NamedTuple):
    """An unpacked package."""

    name: str
    version: str
    root: Path

    def find(self, pattern: str) -> list[Path]:
        """Files that match `pattern`, sorted. Raises `UserError` if there are none."""
        found = sorted(self.root.glob(pattern), key=str)
        if not found:
            raise self._missing(pattern)
        return found

    def read(self, file: str) -> tuple[Float[np.ndarray, "time channel"], int]:
        """An audio file and its rate in Hz; "ARCHIVE!MEMBER" lies in a zip archive.

        Raises `UserError` if it is missing or damaged.
        """
        path, _, member = file.partition("!")
        try:
            data = (self.root / path).read_bytes()
            if member:
                data = zipfile.ZipFile(io.BytesIO(data)).read(member)
            return soundfile.read(io.BytesIO(data), always_2d=True)
        except (FileNotFoundError, KeyError):
            raise self._missing(file) from None
        except (soundfile.LibsndfileError, zipfile.BadZipFile):
            raise UserError(
                f"{self.root / path}: damaged; delete {self.root} and run the command again"
            ) from None

    def _missing(self, file: str) -> UserError:
        return UserError(
            f"package {self.name} {self.version}: has no {file}; expected a version that has it"
        )


def fetch(name: str, folder: Path | None) -> Package:
    """A package unpacked in `folder` (None: the user's cache), downloaded if it is not there yet.

    Raises:
        UserError: no apt, no such package, no network, a full disk.
    """
    folder = folder or user_cache("packages")
    unpacked = sorted(path for path in folder.glob(f"{name}_*") if path.is_dir())
    root = unpacked[-1] if unpacked else _download(name, folder)
    return Package(name, urllib.parse.unquote(root.name.split("_")[1]), root)


def _download(name: str, folder: Path) -> Path:
    """The folder of the unpacked package, NAME_VERSION_ARCHITECTURE."""
    make_folder(folder)
    with write_errors(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
        # Otherwise apt-get, run by root, warns that its own user cannot write here.
        _run(name, part, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
        (deb,) = Path(part).glob("*.deb")
        root = deb.with_suffix("")
        _run(name, part, "dpkg-deb", "-x", deb.name, root.name)
        return root.rename(folder / root.name)


def _run(package: str, folder: str, *command: str) -> None:
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]}: not found; expected Debian, a system derived from it, or a container of"
            " one: this data set is made of Debian packages"
        ) from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if not line.startswith("W:")]
        raise UserError(
            f"package {package}: {command[0]} failed: {lines[0] if lines else result.returncode}; "
            "is there a network, and has apt-get update been run?"
        )
