"""What the packages import, and what the wheel holds."""

import pathlib
import tomllib

import grimp
import pytest

PACKAGES = ("diffsep_jax", "data_pipelines")


@pytest.fixture
def graph():
    """Every import, also those inside functions and for type checking."""
    return grimp.build_graph(
        *PACKAGES, "benchmarks", include_external_packages=True, cache_dir=None
    )


def circles(graph):
    """Each largest set of modules that import each other, directly or not."""
    imported = {module: graph.find_upstream_modules(module) for module in graph.modules}
    sets = {
        frozenset({module} | {other for other in imported[module] if module in imported[other]})
        for module in graph.modules
    }
    return [" <-> ".join(sorted(each)) for each in sets if len(each) > 1]


def test_circles_are_found_and_named():
    graph = grimp.ImportGraph()
    for importer, imported in ("ab", "bc", "ca", "cd", "de", "fa"):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == ["a <-> b <-> c"]


def test_no_modules_import_each_other(graph):
    assert circles(graph) == []


def test_no_parts_of_a_package_import_each_other(graph):
    """The parts are its modules and sub-packages, each sub-package as a whole."""
    for package in PACKAGES:
        for part in graph.find_children(package):
            graph.squash_module(part)
    assert circles(graph) == []


def test_no_package_imports_the_experiments(graph):
    """`configs` belongs to the checkout: scripts put experiments, data and library together."""
    graph.add_module("configs", is_squashed=True)
    importers = graph.find_modules_that_directly_import("configs")
    assert {name for name in importers if name.startswith(PACKAGES)} == set()


def test_the_wheel_has_the_library_and_nothing_else():
    root = pathlib.Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    files = (root / "diffsep_jax").rglob("__init__.py")
    found = {".".join(file.parent.relative_to(root).parts) for file in files}
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_the_library_imports_nothing_of_the_checkout(graph):
    imported = {
        name
        for module in graph.find_descendants("diffsep_jax")
        for name in graph.find_modules_directly_imported_by(module)
    }
    assert not {name for name in imported if name.startswith(("data_pipelines", "configs"))}
