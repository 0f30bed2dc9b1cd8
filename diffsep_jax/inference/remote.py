"""Models named by a URL: fetched file by file when first needed, and kept in a cache."""

import functools
import hashlib
import re
from pathlib import Path

from diffsep_jax.errors import MachineError, UserError, describe
from diffsep_jax.files import user_cache, write_bytes
from diffsep_jax.urls import open_url

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

MAX_BYTES = {CONFIG_FILE: 2**20, WEIGHTS_FILE: 2**32}
"""Larger files are not fetched. The paper's largest model has 0.4 GB."""

_HUB = "hf://"


@functools.cache
def fetch(url: str, name: str) -> Path:
    """A local copy of one file of the model at `url`; a process asks for it once.

    `hf://user/name[@revision]` is a repository on the Hugging Face Hub, which goes to the hub's own
    cache and is found there without a network. Other URLs are folders that fsspec can open; their
    files go to the user's cache, each whole or not at all.

    Raises UserError if that fails, and for a file of more than `MAX_BYTES`.
    """
    try:
        return _from_hub(url, name) if url.startswith(_HUB) else _from_folder(url, name)
    except (UserError, MachineError):
        raise
    except ModuleNotFoundError as error:
        reason = f"needs the package {error.name}; in the checkout, pip install -e '.[hub]'"
        raise UserError(f"{url}: {reason}") from None
    except FileNotFoundError as error:
        files = " and ".join(MAX_BYTES)
        raise UserError(f"{url}: no such file: {error}; expected a folder of {files}") from None
    except Exception as error:  # every file system has its own
        raise UserError(f"{url}: {name} cannot be fetched ({describe(error)})") from None


def _from_hub(url: str, name: str) -> Path:
    found = re.fullmatch(rf"{_HUB}([\w.-]+/[\w.-]+)(?:@(\S+))?", url)
    if not found:
        raise UserError(f"model is {url!r}; expected hf://user/name or hf://user/name@revision")
    from huggingface_hub import constants, errors, hf_hub_download

    repository, revision = found.groups()
    if name == WEIGHTS_FILE:  # of the same commit: the name of the folder in the hub's cache
        revision = fetch(url, CONFIG_FILE).parent.name
    try:
        answer = hf_hub_download(repository, name, revision=revision, dry_run=True)
        _check_size(url, name, answer.file_size)
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.RepositoryNotFoundError:
        reason = "no such repository, or one that needs a login: hf auth login"
    except errors.RevisionNotFoundError:
        reason = f"the repository has no revision {revision}"
    except errors.RemoteEntryNotFoundError:
        reason = f"has no {name}; expected a model directory"
    except errors.LocalEntryNotFoundError:
        reason = f"{name} is not in the hub's cache, and {constants.ENDPOINT} cannot be reached"
    raise UserError(f"{url}: {reason}")


def _from_folder(url: str, name: str) -> Path:
    filesystem, folder = open_url(url)
    path = f"{folder}/{name}"
    copy = _copies(url) / name
    if not copy.is_file():
        size = filesystem.size(path)
        _check_size(url, name, size)
        content = filesystem.cat_file(path)
        if len(content) != size:
            raise UserError(f"{url}: got {len(content)} of {size} bytes of {name}; try again")
        write_bytes(copy, content)
    return copy


@functools.cache
def _copies(url: str) -> Path:
    """The folder for copies of the files at `url` in their present versions."""
    filesystem, folder = open_url(url)
    # Size, time, ETag: what the file system knows of a file.
    versions = [str(filesystem.info(f"{folder}/{name}")) for name in MAX_BYTES]
    return user_cache("models") / hashlib.sha256("\n".join([url, *versions]).encode()).hexdigest()


def _check_size(url: str, name: str, size: int | None) -> None:
    if size is None or size > MAX_BYTES[name]:
        raise UserError(
            f"{url}: {name} has {size or 'unknown'} bytes; expected at most {MAX_BYTES[name]}"
        )
