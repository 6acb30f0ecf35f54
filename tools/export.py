"""`make export`: modules from the notebooks, notebooks cleaned, and what follows from settings.ini written where it is read

Addresses (badges, install lines, the Repository of pyproject.toml) and the blocks between `<!-- name -->` and `<!-- /name -->`
in the notebooks are filled in; README.md is nbs/index.ipynb without the cells that begin with `#| hide`. Pages that show it allow no styles and no drawings in the
text, so what a cell showed as HTML is there the picture that `#| label` and `#| fig-alt` name.
"""
import fnmatch, functools, os, re
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/"nbs"

# One line for each file and folder of the root; a notebook's line is its own subtitle.
NOTES = {
    "nbs/": "the source: ten rooms and the shell; one notebook, one module, one concept; and how petit was made",
    "nbs/tutorials/": "lessons to run",
    "nbs/images/": "pictures for this page",
    "loranb/": "the package, exported from the notebooks; never edited by hand",
    "loranb/__init__.py": "the public names, each imported when it is first asked for",
    "loranb/assets/": "petit: weights, tokenizer and rows; shapes.json: the configurations of popular models; gpus.csv: cards; texts: the words of readings and panels; js: the widgets' ES modules and style sheets",
    "tests/": "what a reader need not read; pytest runs it and every notebook",
    "tests/browser/": "JupyterLab in headless Chromium: keys, clicks, Stop, Resume",
    "tests/bench/": "measurements against the figures to hold",
    "tests/gpu/": "what only a GPU can show, one command of eight minutes",
    "tests/real/": "the whole loop on a real base, where there is one",
    "tools/": "export.py, which `make export` runs; gpu_wheels.py, what a bare GPU machine lacks; real_base.py, a real base and rows for it from wheels",
    ".ci/": "run: what continuous integration runs",
    "settings.ini": "the package's metadata, and the repository's address",
    "setup.py": "hands settings.ini to the build",
    "pyproject.toml": "the tools' configuration",
    "constraints.txt": "exact versions for development",
    "constraints-colab.txt": "the versions that Colab has",
    "Makefile": "the commands above",
    "README.md": "this page, made from nbs/index.ipynb",
    "CONTRIBUTING.md": "how a change is made",
    "CHANGELOG.md": "what changed",
    "LICENSE": "Apache-2.0",
    ".gitignore": "what is not kept",
}


@functools.cache
def settings():
    "The section of settings.ini"
    cfg = ConfigParser()
    cfg.read(ROOT/"settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def subtitle(path):
    "The line below a notebook's title"
    source = nbformat.read(path, 4).cells[0].source
    return re.search(r"^> (.+?)\.?$", source, re.M)[1]


def room(folder):
    "What a room is for, and its notebooks in the order of reading"
    page, books = folder/"index.ipynb", sorted(p for p in folder.rglob("*.ipynb") if p.stem != "index")
    names = [re.sub(r"^\d+_", "", p.stem) for p in books]
    return f"{subtitle(page)}: {', '.join(names)}" if page.exists() else subtitle(books[0])


def kept(folder):
    "What lies in `folder`, without what git does not keep"
    ignored = [o.strip("/") for o in (ROOT/".gitignore").read_text().split()] + [".git"]
    return sorted(p for p in folder.iterdir() if not any(fnmatch.fnmatch(p.name, o) for o in ignored))


def tree():
    "The annotated list of files: NOTES in their order, with each folder's notebooks below it"
    unknown = [p.name for p in kept(ROOT) if p.name + "/"*p.is_dir() not in NOTES]
    if unknown: raise SystemExit(f"tools/export.py has no line for {', '.join(unknown)}")
    rows = []
    for name, note in NOTES.items():
        if not (ROOT/name).exists() or name.endswith("/") and not kept(ROOT/name): continue
        rows.append((name, note))
        if not name.startswith("nbs/"): continue
        rows += [(name + p.name, subtitle(p)) for p in sorted(kept(ROOT/name)) if p.suffix == ".ipynb"]
        if name == "nbs/":
            rows += [(f"{name}{p.name}/", room(p)) for p in sorted(kept(ROOT/name)) if re.match(r"\d+_", p.name)]
    shown = ["  "*(name.rstrip("/").count("/")) + Path(name).name + "/"*name.endswith("/") for name, _ in rows]
    return "\n".join(f"{s:{max(map(len, shown)) + 2}}{note}" for s, (_, note) in zip(shown, rows))


@functools.cache
def blocks():
    "What stands between the marks of each name"
    adds = settings()["colab_adds"].split()
    return {"tree": f"```text\n{tree()}\n```", "colab": " and ".join(f"`{a}`" for a in adds)}


def filled(text):
    "`text` with the repository's address and the marked blocks up to date"
    s = settings()
    text = re.sub(r"(colab\.research\.google\.com/github)/[\w.-]+/[\w.-]+/blob/[\w.-]+/",
        rf"\1/{s['user']}/{s['repo']}/blob/{s['branch']}/", text)
    text = re.sub(r"git\+https?://[^\s\"'`)]+", f"git+{s['git_url']}", text)
    text = re.sub(r"(urls\.Repository = )\".*\"", rf'\1"{s["git_url"]}"', text)
    return re.sub(r"<!-- (\w+) -->(\n?).*?<!-- /\1 -->",
        lambda m: f"<!-- {m[1]} -->{m[2]}{blocks()[m[1]]}{m[2]}<!-- /{m[1]} -->", text, flags=re.S)


def write(path, text):
    "Write `text` to `path` when it is new"
    if not path.exists() or path.read_text(encoding="utf-8") != text: path.write_text(text, encoding="utf-8")


def fill():
    "Bring addresses and blocks up to date in pyproject.toml and in the notebooks"
    write(ROOT/"pyproject.toml", filled((ROOT/"pyproject.toml").read_text(encoding="utf-8")))
    for path in NBS.rglob("*.ipynb"):
        nb = nbformat.read(path, 4)
        new = [filled(c.source) for c in nb.cells]
        if new == [c.source for c in nb.cells]: continue
        for c, source in zip(nb.cells, new): c.source = source
        nbformat.write(nb, path)


def readme():
    "README.md as Markdown from nbs/index.ipynb, links seen from the root"
    rules = Config({"MarkdownExporter": {"preprocessors": ["nbconvert.preprocessors.RegexRemovePreprocessor"]},
                    "RegexRemovePreprocessor": {"patterns": [r"#\|\s*hide\b"]}})
    nb = nbformat.read(NBS/"index.ipynb", 4)
    nb.metadata["language_info"] = {"name": "python"}
    for c in nb.cells:
        said, c.source = dict(re.findall(r"^#\| ([\w-]+): (.+)\n", c.source, re.M)), re.sub(r"^#\| [\w-]+: .+\n", "",
            c.source, flags=re.M)
        for o in c.get("outputs", []):
            if "text/html" in o.get("data", {}):
                o["data"] = {"text/markdown": f"![{said['fig-alt']}](images/{said['label']}.png)" if "label" in said
                    else ""}
    text = MarkdownExporter(config=rules).from_notebook_node(nb)[0]
    seen = lambda m: m[1] + str((NBS/m[2]).resolve().relative_to(ROOT)) + m[3]
    text = re.sub(r"(\]\()(?!https?:|#)([^)#\s]+)([^)]*\))", seen, text)
    text = re.sub(r"\n{3,}", "\n\n", text).replace("```\n\n```python\n", "")
    return text.strip() + "\n"


if __name__ == "__main__":
    from nbdev.clean import nbdev_clean
    from nbdev.doclinks import nbdev_export
    os.chdir(ROOT)
    fill()
    nbdev_export()
    nbdev_clean()
    write(ROOT/"README.md", readme())
