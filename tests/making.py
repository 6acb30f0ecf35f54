"What the notebooks on the making of petit define, for the tests of it"
from pathlib import Path
from types import SimpleNamespace

import nbformat

FOLDER = Path(__file__).parents[1]/"nbs"/"12_making_of_petit"


def making(*names):
    "The names that notebooks define, run one after another without the cells that write the package's files"
    space = {}
    for name in names:
        for cell in nbformat.read(FOLDER/f"{name}.ipynb", 4).cells:
            if cell.cell_type != "code" or cell.source.startswith(("#| eval: false", "%run")): continue
            exec(compile(cell.source, f"{name}.ipynb", "exec"), space)
    return SimpleNamespace(**space)
