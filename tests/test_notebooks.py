"Every notebook runs from top to bottom in a Jupyter kernel of its own"
import json, os, re, subprocess, sys, time
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/"nbs"
PATHS = sorted(p for p in NBS.rglob("*.ipynb") if not any(o[0] in "._" for o in p.relative_to(NBS).parts))
SETTINGS = ConfigParser()
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
ENV = {**os.environ, "IN_TEST": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
REAL = Path(os.environ.get("LORANB_REAL") or ROOT/".real")
# with these, the tests of a working day would take half as long again
LONG = ("tutorials/quickstart", "tutorials/lora_section_7", "tutorials/read_a_spectrum", "06_evaluate/04_watch",
    "06_evaluate/06_comparing", "06_evaluate/07_questions", "07_adapters/05_budget")
FLAGS = SETTINGS["DEFAULT"]["tst_flags"].split()


def skipped(source, flags=FLAGS):
    "Does the cell carry one of these flags, `eval: false`, or nbdev's own export?"
    marks = [m.split() for m in re.findall(r"^#\|\s*(.+)", source, re.M)]
    return "nbdev_export(" in source or any(m[0] in flags or m[:2] == ["eval:", "false"] for m in marks)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    "The name of a kernel that has the libraries, not loranb, imported already"
    home = tmp_path_factory.mktemp("kernel")
    warm, spec = [sys.executable, str(Path(__file__).with_name("warm.py")), str(home/"socket")], home/"kernels"/"warm"
    spec.mkdir(parents=True)
    argv = [*warm, "-f", "{connection_file}"]
    (spec/"kernel.json").write_text(json.dumps(dict(argv=argv, display_name="warm", language="python")))
    with pytest.MonkeyPatch.context() as m, subprocess.Popen(warm, env=ENV, stdout=subprocess.DEVNULL) as server:
        m.setenv("JUPYTER_PATH", str(home))
        while not (home/"socket").exists() and server.poll() is None: time.sleep(.1)
        yield "warm"
        server.kill()


def when(path):
    "What a notebook's test is marked with"
    return pytest.mark.slow if str(path.relative_to(NBS).with_suffix("")) in LONG else ()


@pytest.mark.parametrize("path", [pytest.param(p, marks=when(p), id=str(p.relative_to(NBS))) for p in PATHS])
def test_notebook(path, kernel, slow):
    "Run where it lies, without what is skipped; a cell that fails raises"
    nb = nbformat.read(path, 4)
    asked = dict(slow=slow, real=slow and REAL.exists())
    flags = [f for f in FLAGS if not asked.get(f)]
    nb.cells = [c for c in nb.cells if c.cell_type != "code" or not skipped(c.source, flags)]
    where = dict(metadata=dict(path=str(path.parent)))
    NotebookClient(nb, timeout=600, kernel_name=kernel, resources=where).execute(env=ENV)
