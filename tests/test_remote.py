"""Models by URL: from a local server that speaks the hub's protocol, and from fsspec's memory."""

import sys
import time
from importlib.util import find_spec

import fsspec
import huggingface_hub.constants
import jax
import micro
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hub import COMMITS, Hub, serving
from processes import python

import train
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.evaluate import weights_digest
from diffsep_jax.inference import remote
from diffsep_jax.inference.pretrained import (
    load_config,
    load_default_preset,
    load_model,
    save_model,
)

URL = "hf://user/name"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, micro.MODEL, micro.random_params(micro.MODEL), default_preset="fast")
    return folder


@pytest.fixture(scope="module")
def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def nothing_known(tmp_path, monkeypatch):
    """Empty caches, and a process that has asked for no model yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    forget()
    MemoryFileSystem.store.clear()


def forget():
    remote.fetch.cache_clear()
    remote._copies.cache_clear()


@pytest.fixture
def hub(files, monkeypatch):
    config_of_another = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"}
    repositories = {
        "user/name": {
            "main": files | {"pytorch_model.bin": b"pickle"},
            "old": files | {"config.json": files["config.json"].replace(b'"fast"', b'"best"')},
        },
        "user/another": {"main": config_of_another},
        "user/part": {"main": {"config.json": files["config.json"]}},
    }
    with serving(Hub(repositories)) as hub:
        constants = huggingface_hub.constants  # as HF_ENDPOINT sets them when it is imported
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def at(url, files):
    """Writes the files of a model to fsspec's memory."""
    for name, content in files.items():
        fsspec.filesystem("memory").pipe(f"{url}/{name}", content)
    return url


def same(url, folder):
    (model, params), (model_there, params_there) = load_model(url), load_model(str(folder))
    assert model == model_there
    jax.tree.map(np.testing.assert_array_equal, params, params_there)
    assert load_default_preset(url) == "fast"
    assert weights_digest(url) == weights_digest(str(folder))
    return True


def test_a_model_on_the_hub(hub, folder):
    assert same(URL, folder)
    fetched = [path for method, path in hub.requests if method == "GET"]
    assert len(fetched) == 2  # nothing twice
    assert fetched[0] == "/user/name/resolve/main/config.json"
    assert fetched[1].endswith("/model.safetensors")

    assert load_default_preset(f"{URL}@old") == "best"
    assert load_default_preset(f"{URL}@{COMMITS['old']}") == "best"


def test_only_the_config_is_fetched_where_it_is_enough(hub):
    load_config(URL)
    assert not [path for _, path in hub.requests if "safetensors" in path]


def test_environment_variables_of_the_hub_and_its_cache_without_a_network(hub, tmp_path):
    """The server is given by HF_ENDPOINT; later the cache answers, by HF_HUB_OFFLINE or itself."""
    code = "import sys; from diffsep_jax.inference.remote import fetch; print(fetch(*sys.argv[1:]))"

    def fetch(**environment):
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)} | environment
        done = python("-c", code, URL, "model.safetensors", **given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = fetch()
    assert str(tmp_path) in first
    asked = len(hub.requests)
    assert fetch(HF_HUB_OFFLINE="1") == first
    assert len(hub.requests) == asked
    hub.shutdown()
    hub.server_close()
    assert fetch() == first


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hf://name", r"model is 'hf://name'; expected hf://user/name or hf://user/name@revision"),
        ("hf://user/name/more", "expected hf://user/name or"),
        ("hf://user/nam", "hf://user/nam: no such repository, or one that needs a login"),
        (f"{URL}@new", f"{URL}@new: the repository has no revision new"),
        ("hf://user/part", "hf://user/part: has no model.safetensors; expected a model directory"),
        ("hf://user/another", "config.json: not a model's config"),
    ],
)
def test_what_is_no_model_on_the_hub(hub, url, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(url)
    assert "\n" not in str(caught.value)
    assert not [path for method, path in hub.requests if method == "GET" and "safetens" in path]


@pytest.mark.parametrize("name", remote.MAX_BYTES)
def test_a_file_that_is_too_large_is_not_fetched(hub, name):
    hub.sizes[name] = remote.MAX_BYTES[name] + 1
    with pytest.raises(UserError, match=f"{URL}: {name} has .* bytes; expected at most"):
        load_model(URL)
    assert not [path for method, path in hub.requests if method == "GET" and name in path]


def test_a_download_that_breaks_off_leaves_nothing_to_load(hub, folder, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the hub's attempts
    hub.cut.add("model.safetensors")
    with pytest.raises(UserError, match=f"{URL}: model.safetensors cannot be fetched") as caught:
        load_model(URL)
    assert "\n" not in str(caught.value)
    hub.cut.clear()
    assert same(URL, folder)


def test_no_network(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match=r"config.json is not in the hub's cache, and http://127"):
        load_model(URL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"config.json is not in the hub's cache, and http://127"):
        load_model(URL)


@pytest.mark.parametrize(("url", "name"), [(URL, "huggingface_hub"), ("memory://a", "fsspec")])
def test_a_missing_package(monkeypatch, url, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{url}: needs the package {name}; .*'\.\[hub\]'"):
        load_model(url)


def test_a_model_in_a_file_system(tmp_path, files, folder, monkeypatch):
    assert same(at("memory://models/mine", files), folder)
    copies = sorted(path.name for path in (tmp_path / "cache").rglob("*.*"))
    assert copies == ["config.json", "model.safetensors"]

    forget()
    monkeypatch.setattr(MemoryFileSystem, "cat_file", pytest.fail)
    assert same("memory://models/mine", folder)  # the copies are found again


def test_a_model_that_changed_is_fetched_again(files):
    url = at("memory://mine", files)
    assert load_default_preset(url) == "fast"
    at(url, {"config.json": files["config.json"].replace(b'"fast"', b'"best"')})
    assert load_default_preset(url) == "fast"  # a process keeps to what it began with
    forget()
    assert load_default_preset(url) == "best"


@pytest.mark.parametrize("failure", ["error", "end"])
def test_a_download_from_a_file_system_that_breaks_off(
    tmp_path, files, folder, monkeypatch, failure
):
    url = at("memory://mine", files)

    def broken(self, path, **_):
        if failure == "error":
            raise ConnectionResetError("reset by\npeer")
        return files["model.safetensors"][:100]

    load_config(url)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", broken)
        reason = {"error": r"fetched \(ConnectionResetError: reset by\)", "end": "got 100 of"}
        with pytest.raises(UserError, match=reason[failure]):
            load_model(url)
    assert [path.name for path in (tmp_path / "cache").rglob("*.*")] == ["config.json"]
    assert same(url, folder)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nothing", "memory://nothing: no such file: .*; expected a folder of config"),
        ("memory://part", "memory://part: no such file: .*model.safetensors"),
        ("nonsense://a", "Protocol not known: nonsense"),
        pytest.param(
            "s3://bucket/model",
            "Install s3fs",
            marks=pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed"),
        ),
    ],
)
def test_what_is_no_model_in_a_file_system(files, url, message):
    at("memory://part", {"config.json": files["config.json"]})
    with pytest.raises(UserError, match=message) as caught:
        load_model(url)
    assert "\n" not in str(caught.value)


def test_large_files_in_a_file_system(files, monkeypatch):
    url = at("memory://large", files | {"config.json": b" " * (2**20 + 1)})
    monkeypatch.setattr(MemoryFileSystem, "cat_file", pytest.fail)
    with pytest.raises(UserError, match=r"config.json has 1048577 bytes; expected at most 1048576"):
        load_model(url)


def test_a_run_starts_from_a_model_by_url(tmp_path, files):
    url = at("memory://mine", files)
    run = train.parse(["tiny", f"--workdir={tmp_path}", f"--init-from={url}"])
    with pytest.raises(UserError, match=f"--init-from {url}: .*the models must be the same"):
        train.initial_params(run)
