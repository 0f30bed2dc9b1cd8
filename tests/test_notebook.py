"""The notebook docs/colab.ipynb runs without a network and shows its page to this machine only."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra app")
pytest.importorskip("ipykernel", reason="needs the extra dev")
nbclient = pytest.importorskip("nbclient", reason="needs the extra dev")
nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")

ROOT = Path(__file__).parents[1]

OFFLINE = """
import socket

connect = socket.socket.connect


def connect_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost"):
        raise OSError(f"connected to {address}")
    return connect(self, address)


socket.socket.connect = connect_here
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_without_a_network(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    notebook = nbformat.read(ROOT / "docs" / "colab.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    *_, listen, page = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("audio" in output.get("data", {}).get("text/html", "") for output in listen) == 3
    shown = "".join(output.get("data", {}).get("text/html", "") for output in page)
    assert 'src="http://127.0.0.1:' in shown
