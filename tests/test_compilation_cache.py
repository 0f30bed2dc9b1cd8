"""Where compiled programs are kept."""

import jax
import pytest

from diffsep_jax.compilation_cache import use_compilation_cache


@pytest.fixture
def cache_dir(monkeypatch):
    """The folder that is set now, as a function; what was set before comes back afterwards."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_users_cache_folder_is_taken(cache_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    assert cache_dir() == str(tmp_path / "diffsep-jax" / "compiled")


@pytest.mark.parametrize("folder", ["elsewhere", ""])
def test_jaxs_own_variable_goes_first(cache_dir, monkeypatch, folder):
    before = cache_dir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
    use_compilation_cache()
    assert cache_dir() == before
