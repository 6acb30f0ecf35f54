"Every notebook runs from top to bottom in a Jupyter kernel of its own"
import os, re
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/"nbs"
PATHS = sorted(p for p in NBS.rglob("*.ipynb") if not any(o[0] in "._" for o in p.relative_to(NBS).parts))
SETTINGS = ConfigParser()
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
FLAGS = SETTINGS["DEFAULT"]["tst_flags"].split()


def skipped(source):
    "Does the cell carry a flag of `tst_flags`, `eval: false`, or nbdev's own export?"
    marks = [m.split() for m in re.findall(r"^#\|\s*(.+)", source, re.M)]
    return "nbdev_export(" in source or any(m[0] in FLAGS or m[:2] == ["eval:", "false"] for m in marks)


def run(path):
    "Run the notebook at `path` where it lies, without what is skipped; a cell that fails raises"
    nb = nbformat.read(path, 4)
    nb.cells = [c for c in nb.cells if c.cell_type != "code" or not skipped(c.source)]
    env = {**os.environ, "IN_TEST": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=env)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(NBS)))
def test_notebook(path): run(path)
