"""The documentation: its site, commands and programs, the public names, the errors' style."""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from unittest import mock

import pytest
import tyro

import diffsep_jax
from diffsep_jax import cli
from diffsep_jax.errors import UserError
from diffsep_jax.inference.settings import complete

ROOT = Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("diffsep_jax/*/*/*.md")})
PAGES.remove(ROOT / "CHANGELOG.md")  # of earlier versions too
CONFIGS = sorted(set(ROOT.glob("configs/*.py")) - {ROOT / "configs" / "__init__.py"})
PROGRAMS = "diffsep", "python", "pip", "make"


class ParsedError(BaseException):
    """Ends a command once its options are parsed. A BaseException: commands catch the others."""


def blocks(text):
    """The text with fenced blocks indented, and without those of Python."""

    def indented(block):
        return "" if block[1] == "python" else textwrap.indent(block[2], "    ")

    return re.sub(r"^```(\w*)\n(.*?)^```", indented, text, flags=re.MULTILINE | re.DOTALL)


def words(line):
    """The words of a command from its program on; none if the line is something else."""
    try:
        found = shlex.split(line, comments=True)
    except ValueError:
        return []
    while found and re.match(r"time$|/usr/bin/time$|-v$|[A-Z_]+=", found[0]):
        del found[0]
    found[:1] = [word.removeprefix(".venv/bin/") for word in found[:1]]
    return found if found and found[0] in PROGRAMS else []


def commands(text):
    """The commands in blocks, and those between backquotes that have options."""
    text = blocks(text)
    lines = re.findall(r"^ {4,}(.*)", re.sub(r"\\+\n\s*", "", text), re.MULTILINE)
    quoted = [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text)]
    lines += [each for each in quoted if re.search(r" (--\w|-k )", each)]
    return [shlex.join(found) for line in lines if (found := words(line))]


def check(command):
    """Runs a command up to the end of its parser. SystemExit or AssertionError if it is wrong."""
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = {name for each in re.findall(r"\.\[(.*?)\]", command) for name in each.split(",")}
        assert extras <= project["optional-dependencies"].keys()
    elif arguments[:2] == ["-m", "pytest"]:
        file, _, name = arguments[2:]
        assert re.search(rf"def test\w*{name}", (ROOT / file).read_text())
    elif program == "diffsep":
        check_options(cli.main, arguments)
    else:
        check_script(*arguments)


def check_script(name, *arguments):
    path = ROOT / name
    if name == "-m":
        module, *arguments = arguments
        path = ROOT / module.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        assert (ROOT / "docs" / name).is_file()  # such a program has no parser
        return
    assert "import tyro" in path.read_text()  # or it would run
    with mock.patch("sys.argv", [str(path), *arguments]), mock.patch("sys.path", [*sys.path]):
        check_options(runpy.run_path, str(path), run_name="__main__")


def check_options(run, *args, **kwargs):
    found = []

    def ended(parse):
        def parse_and_end(*args, **kwargs):
            found.append(parse(*args, **kwargs))
            raise ParsedError

        return parse_and_end

    names = "overridable_config_cli", "subcommand_cli_from_dict"
    extras = {name: ended(getattr(tyro.extras, name)) for name in names}
    with (
        mock.patch("tyro.cli", ended(tyro.cli)),
        mock.patch.multiple(tyro.extras, **extras),
        pytest.raises(ParsedError),
    ):
        run(*args, **kwargs)
    [options] = found
    options = getattr(options, "quality", options)  # of diffsep separate
    if sampling := getattr(options, "sampling", None):
        complete(sampling, refines=getattr(options, "refine", None) is not None)


@pytest.fixture
def torch(monkeypatch):
    """A stub if PyTorch is missing: some benchmarks import it before they parse their options."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        for name in ("torch", "torch.nn", "torch.nn.functional", "torch.utils", "torch.utils.data"):
            tensor = type("Tensor", (), {})  # SciPy asks whether arrays are one
            monkeypatch.setitem(sys.modules, name, mock.MagicMock(Tensor=tensor))


COMMANDS = sorted({each for path in [*PAGES, *CONFIGS] for each in commands(path.read_text())})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_taken(torch, command):
    check(command)


def test_every_config_says_how_to_run_it():
    without = [path.name for path in CONFIGS if not commands(path.read_text())]
    assert without == ["experiment.py"]


@pytest.mark.parametrize(
    "command",
    [
        "diffsep song.mp3 --nonsense",
        "python -m data_pipelines.build stems --out OUT",
        "python -m data_pipelines.inspect SONGS --example 3",
        "python -m benchmarks.bss_eval --data DEVSET --second 240",
        "python -m diffsep_jax.evaluation.report OUT --table tsv",
        "python launch/compile_for_tpu.py small --topology v5e:2x2",
        "python train.py small --workdir RUN --train.num-step 3",
        "python eval.py --out OUT --metric quick",
        "python nonsense.py",
        "python -m pytest tests/test_docs.py -k nowhere",
        "make nonsense",
        "pip install '.[nonsense]'",
    ],
)
def test_a_wrong_command_is_found(command):
    with pytest.raises((SystemExit, AssertionError)):
        check(command)


def test_contradicting_options_are_found():
    with pytest.raises(UserError, match="contradicts"):
        check("diffsep song.mp3 --preset fast --sampler ab2")


def test_commands_are_found():
    text = "`python x.py --a\n1` of `diffsep`\n\n    A=1 diffsep b \\\n      --c 2  # d\n    text\n"
    text += "```sh\nmake e\n```\n```python\nmake = f\n```\n"
    assert commands(text) == ["diffsep b --c 2", "make e", "python x.py --a 1"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_import_what_exists(page):
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        every = ast.walk(ast.parse(code))
        imports = [each for each in every if isinstance(each, ast.Import | ast.ImportFrom)]
        if "diffsep_jax.app" in code:
            pytest.importorskip("gradio", reason="needs the extra app")
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_the_functions_of_the_map_exist():
    table = (ROOT / "docs" / "extend.md").read_text().split("## Where it happens")[1].split("##")[0]
    names = re.findall(r"`([a-z_]+)`", table)
    places = re.findall(r"`(\w+)`(?: and `(\w+)`)? in `([\w/]+\.py)`", table)
    assert sum(bool(name) for *both, _ in places for name in both) == len(names)
    for *both, file in places:
        defined = re.findall(r"^ *def (\w+)", (ROOT / file).read_text(), re.MULTILINE)
        assert {name for name in both if name} <= set(defined), file


def test_the_site_has_no_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([*command, tmp_path], check=True, cwd=ROOT, env=environment)
    page = (tmp_path / "index.html").read_text()
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)


def test_public_names_are_described():
    """And all are on the page of the API."""
    names = {*diffsep_jax.__all__} - {"__version__"}
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^::: diffsep_jax\.(\w+)$", page, re.MULTILINE)) == names
    for name in names:
        public = getattr(diffsep_jax, name)
        parts = vars(public) if isinstance(public, type) else {}
        parts = {part: value for part, value in parts.items() if not part.startswith("_")}
        undescribed = [part for part, value in parts.items() if not value.__doc__]
        assert public.__doc__
        assert not undescribed, name


@pytest.mark.parametrize("page", ["README.md", "docs/separate.md"])
def test_pages_quote_the_scores_of_the_model_card(page):
    row = r"^\| `--preset (\w+)`.*?\| (-?\d+\.\d\d \[[^]]*\])"
    card = (ROOT / "diffsep_jax/pretrained/small/README.md").read_text()
    scores = dict(re.findall(row, card, re.MULTILINE))
    quoted = dict(re.findall(row, (ROOT / page).read_text(), re.MULTILINE))
    assert scores.keys() == {"fast", "balanced", "best"}
    assert quoted == scores


@pytest.mark.parametrize("part", ["diffsep_jax", "data_pipelines", "configs", "launch"])
def test_errors_end_without_a_period(part):
    for path in (ROOT / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="UserError" | "MachineError"), args=[message]):
                    text = ast.unparse(message).rstrip("'\"")
                    assert not text.endswith("."), f"{path}:{node.lineno}"
