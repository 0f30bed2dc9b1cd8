"""Files at URLs that fsspec opens, such as gs:// and s3://."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsep_jax.errors import UserError, describe

URL = r"[A-Za-z][A-Za-z0-9+.-]*://"
"""How a URL begins."""


def is_url(text: str) -> bool:
    """Whether this is not a path."""
    return re.match(URL, text) is not None


def open_url(url: str) -> tuple[Any, str]:
    """Returns the URL's file system and the path in it. Raises UserError if it cannot be opened."""
    try:
        import fsspec

        filesystem, path = fsspec.url_to_fs(url, use_listings_cache=False)
        return filesystem, path.rstrip("/")
    except ModuleNotFoundError as error:
        reason = f"needs the package {error.name}; in the checkout, pip install -e '.[hub]'"
        raise UserError(f"{url}: {reason}") from None
    except Exception as error:  # every file system has its own
        raise UserError(f"{url}: cannot be opened ({describe(error)})") from None


def download(filesystem: Any, root: str, sizes: Mapping[str, int | None], folder: Path) -> None:
    """Copies files from below `root` to below `folder`; those that have their size already stay.

    Raises an OSError if a file is not of the size that is given, and whatever the file system does.
    """
    paths = {name: folder / name for name in sizes}
    for name, path in paths.items():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise OSError(f"{name!r} is no name of a file below a folder")
    missing = [n for n, p in paths.items() if not (p.is_file() and p.stat().st_size == sizes[n])]
    if missing:
        remote = [f"{root}/{name}" for name in missing]
        filesystem.get(remote, [str(paths[name]) for name in missing])
    for name in missing:
        if sizes[name] not in (None, size := paths[name].stat().st_size):
            raise OSError(f"got {size} of {sizes[name]} bytes of {name}")
