"""Data sets of records at URLs: copied whole to a local folder, and then read there."""

import fcntl
import hashlib
from pathlib import Path

from diffsep_jax.errors import UserError, describe
from diffsep_jax.urls import download, open_url


def local_records(url: str, cache: Path) -> Path:
    """A copy of the data set at or below `url`, in `cache`, whole or not at all.

    Of processes that want the same, one copies and the others wait. A copy that broke off goes on.

    Raises UserError if that fails, or if there is not one data set.
    """
    filesystem, root = open_url(url)
    try:
        found = {
            name.removeprefix(root).strip("/"): info
            for name, info in filesystem.find(root, detail=True).items()
        }
        data_sets = [n for n in found if n.endswith("dataset_info.json") and n.count("/") <= 2]
        if len(data_sets) == 1:
            # Size, time, ETag: what the file system knows of a file.
            version = hashlib.sha256(f"{url}\n{sorted(map(str, found.items()))}".encode())
            folder = cache / f"records-{version.hexdigest()[:16]}"
            prefix = data_sets[0].removesuffix("dataset_info.json")
            sizes = {
                name.removeprefix(prefix): info["size"]
                for name, info in found.items()
                if name.startswith(prefix)
            }
            _copy(filesystem, f"{root}/{prefix}".rstrip("/"), sizes, folder)
            return folder
    except Exception as error:  # every file system has its own
        raise UserError(f"{url}: cannot be copied to {cache} ({describe(error)})") from None
    raise UserError(
        f"{url}: {len(data_sets) or 'no'} data sets in it; expected one of python -m"
        " data_pipelines.build. Copy songs to a local disk, or build records of them"
    )


def _copy(filesystem: object, root: str, sizes: dict[str, int], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        print(f"copying {sum(sizes.values()) / 1e6:.0f} MB from {root} to {folder}")
        part = folder.with_suffix(".part")
        download(filesystem, root, sizes, part)
        part.rename(folder)
