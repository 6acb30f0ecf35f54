"What the repository promises of itself"
import ast, json, os, re, shutil, subprocess, sys, zipfile
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS, LIB = ROOT/"nbs", ROOT/"loranb"
BOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
MODULES = sorted(p for p in LIB.rglob("*.py") if p.name != "_modidx.py")  # those of the rooms too
MADE = ".venv* .real .git __pycache__ *.egg-info build dist runs demo shots .hypothesis .ipynb_checkpoints .lab _proc".split()
NARRATIVE = ("too-many-defs long-exported-cell undocumented-export exported-run long-example-cell comment-in-example "
    "example-run".split())
cfg = ConfigParser()
cfg.read(ROOT/"settings.ini", encoding="utf-8")
SETTINGS = cfg["DEFAULT"]
needs_nbdev = pytest.mark.skipif(not find_spec("nbdev"),
    reason="needs nbdev, which asks for a newer fastcore than Colab has")


def left_out(folder, names):
    "What of a folder is made and not kept; the room of the runs is kept"
    return {n for n in shutil.ignore_patterns(*MADE)(folder, names) if not (n == "runs" and Path(folder) == LIB)}


def short(path): return str(path.relative_to(ROOT))
def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]
def python(code, **kw): return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **kw)


@pytest.fixture
def copy(tmp_path): return Path(shutil.copytree(ROOT, tmp_path/"clone", ignore=left_out))


def files(folder):
    "Name and content of all files below `folder`"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        and "__pycache__" not in p.parts}


@needs_nbdev
def test_export_changes_nothing(copy):
    "Modules, cleaned notebooks, addresses, the file tree and README.md are as `make export` leaves them"
    before = files(copy)
    subprocess.run([sys.executable, "tools/export.py"], cwd=copy, check=True)
    after = files(copy)
    assert not [n for n in before.keys() | after.keys() if before.get(n) != after.get(n)]


def test_readme_is_the_index():
    sys.path.insert(0, str(ROOT/"tools"))
    try: from export import readme
    finally: sys.path.pop(0)
    assert (ROOT/"README.md").read_text(encoding="utf-8") == readme()


def test_what_the_readme_names_exists():
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    links = [o for o in re.findall(r"\]\(([^)#\s]+)", text) if not o.startswith("http")]
    folders, listed = [], []
    for line in re.search(r"```text\n(.*?)```", text, re.S)[1].splitlines():
        depth, name = (len(line) - len(line.lstrip()))//2, line.split()[0]
        folders[depth:] = [name]
        listed.append("".join(folders))
        assert len(line.split()) > 1, f"nothing is said of {name}"
    missing = [o for o in links + listed if not (ROOT/o).exists()]
    top = [p.name + "/"*p.is_dir() for p in ROOT.iterdir() if not any(p.match(m) for m in MADE)]
    unlisted = [o for o in top + [short(p) if p.parent in (NBS, NBS/"tutorials")
        else f"nbs/{p.relative_to(NBS).parts[0]}/" for p in BOOKS] if o not in listed]
    assert not missing and not unlisted, (missing, unlisted)


def test_the_commands_of_the_readme_are_targets():
    made = re.findall(r"^(\w+):", (ROOT/"Makefile").read_text(), re.M)
    for page in "README.md", "CONTRIBUTING.md", ".ci/run":
        assert set(re.findall(r"^make (\w+)|`make (\w+)", (ROOT/page).read_text(), re.M)) and not [o
            for pair in re.findall(r"^make (\w+)|`make (\w+)", (ROOT/page).read_text(), re.M) for o in pair if o
            and o not in made], page


def test_versions_and_names_agree():
    import tomllib
    tools = tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))
    source = ast.parse((LIB/"__init__.py").read_text(encoding="utf-8")).body
    version = next(ast.literal_eval(o.value) for o in source if isinstance(o, ast.Assign)
        and o.targets[0].id == "__version__")
    assert version == SETTINGS["version"] and f'## {version}' in (ROOT/"CHANGELOG.md").read_text(encoding="utf-8")
    assert tools["project"]["name"] == SETTINGS["lib_name"] == SETTINGS["lib_path"]
    assert tools["tool"]["nbdev"]["tst_flags"] == SETTINGS["tst_flags"]
    assert ast.get_docstring(ast.parse((LIB/"__init__.py").read_text(encoding="utf-8"))).rstrip(".") == SETTINGS["description"]


def test_one_address():
    "Whoever moves the repository edits settings.ini and runs `make export`"
    user, repo, branch, url = (SETTINGS[o] for o in ("user", "repo", "branch", "git_url"))
    assert url == f"https://github.com/{user}/{repo}"
    own = rf"github\.com/(?:[\w.-]+/)?{repo}\b[\w./-]*|github/[\w.-]+/[\w.-]+/blob/[\w.-]+|git\+https?://[^\s\"'`)\\]+"
    fine = {f"github.com/{user}/{repo}", f"github/{user}/{repo}/blob/{branch}", f"git+{url}"}
    pages = [*BOOKS, *MODULES, *(ROOT/o for o in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml",
        "setup.py", "Makefile"))]
    odd = {short(p): [o for o in re.findall(own, p.read_text(encoding="utf-8")) if o not in fine] for p in pages}
    assert not {k: v for k, v in odd.items() if v}
    assert f'urls.Repository = "{url}"' in (ROOT/"pyproject.toml").read_text(encoding="utf-8")


def test_badges_open_notebooks_that_exist():
    for p in [*BOOKS, ROOT/"README.md"]:
        for o in re.findall(r"colab\.research\.google\.com/github/[^/]+/[^/]+/blob/[^/]+/([^)\s\"\\]+)",
                p.read_text(encoding="utf-8")):
            assert (ROOT/o).exists(), (short(p), o)


def places():
    "Where each module stands in the order of reading, which is that of the imports: the numbers of its room and of its notebook"
    where = {}
    for p in BOOKS:
        name = next((m[1] for c in cells(p) if (m := re.match(r"#\|\s*default_exp\s+(\S+)", "".join(c["source"])))),
            None)
        if name and not name.endswith("__init__"): where[name] = place(p)
    return where


def place(book):
    "A notebook's numbers; the widgets in folders stand behind the panel that they are made of, `see` in the order of its links"
    numbers = [int(m[1]) if (m := re.match(r"(\d+)_", part)) else 10 for part in book.relative_to(NBS).parts]
    return [*numbers, ["", "columns", "spectra_views", "trim_views", "explorer"].index(book.stem)
        if book.stem in ("spectra_views", "trim_views", "explorer") else 0]


def handed_on():
    "The public names of the package and of its rooms, and the module of each"
    done = python("import json, loranb, importlib\nfor room in ['', *('.' + r for r in loranb.ROOMS)]:\n"
                  "    m = importlib.import_module('loranb' + room)\n    print(json.dumps({f'loranb{room}.{n}': getattr(m, n).__module__ for n in m.__all__ if hasattr(getattr(m, n), '__module__')}))", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {k: v for line in done.stdout.splitlines() for k, v in json.loads(line).items()}


def imported(path, public):
    "The modules of loranb that the module at `path` imports, anywhere in it"
    tree, here = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree):
        full = []
        if isinstance(node, ast.Import): full = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[:len(here) - node.level], *filter(None, [node.module])] if node.level
                else [node.module])
            full = [f"{base}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr",
                getattr(node.func, "id", "")) in ("import_module", "__import__"):
            full = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        for o in full:
            if o.split(".")[0] != "loranb": continue
            parts = public.get(o, o).split(".")[1:]
            names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            yield next((n for n in names if n in places_now), ".".join(parts))


places_now = places()


def test_every_module_has_a_notebook():
    names = {".".join(p.relative_to(LIB).with_suffix("").parts) for p in MODULES if p.name != "__init__.py"}
    assert names == set(places_now)


def test_every_room_has_a_page():
    rooms = sorted(p for p in NBS.iterdir() if re.match(r"\d+_", p.name))
    assert not [p.name for p in rooms if p.name != "11_cli" and not (p/"index.ipynb").is_file()]
    assert [p.name.partition("_")[2] for p in rooms][:10] == python("import loranb; print(*loranb.ROOMS)",
        cwd=ROOT).stdout.split()


def test_imports_go_one_way():
    public, wrong = handed_on(), []
    for p in MODULES:
        name = ".".join(p.relative_to(LIB).with_suffix("").parts)
        if p.name == "__init__.py": continue
        wrong += [f"{name} imports {o}" for o in imported(p, public) if places_now.get(o, [99]) >= places_now[name]
            and o not in ("__version__", "hand_on")]
    assert not wrong


def test_no_room_below_the_widgets_knows_a_widget():
    for p in MODULES:
        name = ".".join(p.relative_to(LIB).with_suffix("").parts)
        if places_now.get(name, [99])[0] >= 10: continue
        roots = {(a.name if isinstance(n, ast.Import) else n.module or "").split(".")[0]
            for n in ast.walk(ast.parse(p.read_text(encoding="utf-8"))) if isinstance(n, (ast.Import, ast.ImportFrom))
            for a in n.names}
        assert not roots & {"ipywidgets", "anywidget"}, short(p)


def test_no_module_bears_the_name_of_what_it_exports():
    for p in MODULES:
        if p.name == "__init__.py": continue
        names = {n.name for n in ast.parse(p.read_text(encoding="utf-8")).body
            if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        assert p.stem not in names, short(p)


def test_import_is_light():
    heavy = "torch transformers peft bitsandbytes datasets plotly ipywidgets anywidget pandas numpy".split()
    done = python(f"import sys, loranb; print([m for m in {heavy} if m in sys.modules])", cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_public_names_can_be_had():
    done = python("import loranb\nfor n in loranb.__all__: getattr(loranb, n)", cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not find_spec("chkstyle"), reason="fastaistyle is not installed")
def test_notebooks_tell_a_story():
    "Small cells, prose beside them: chkstyle's narrative rules, with nothing switched off for them"
    import tomllib
    ignored = tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))["tool"]["chkstyle"]
    assert set(ignored) == {"ignore"} and not set(ignored["ignore"]) & set(NARRATIVE)
    sources = "\n".join("".join(c["source"]) for p in BOOKS for c in cells(p))
    assert not re.search(r"#\s*chkstyle\s*:", sources)
    done = subprocess.run([Path(sys.executable).with_name("chkstyle"), "--show-rule", "nbs"], cwd=ROOT,
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: str(p.relative_to(NBS)))
def test_notebook_is_clean(path):
    "No widget state, no errors, no paths of a machine, nothing heavy"
    nb = json.loads(path.read_text(encoding="utf-8"))
    outputs = [o for c in nb["cells"] for o in c.get("outputs", [])]
    said = "".join("".join(c["source"]) for c in nb["cells"])
    shown = json.dumps([{**o, "data": {k: v for k, v in o.get("data", {}).items() if not k.startswith("image/p")}}
        for o in outputs])
    assert "widgets" not in nb["metadata"]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [m for o in outputs for m in o.get("data", {}) if "widget" in m]
    assert not re.findall(r"(?<![\w./])/(?:root|home|Users|work)/[\w.-]+", said + shown)
    assert not re.findall(r"(?<![\w./])/(?:tmp|opt|mnt|usr)/[\w.-]+", shown)
    assert not [c for c in nb["cells"] if c.get("execution_count")]
    assert path.stat().st_size < 400_000


def test_installing_names_no_host():
    for name in "constraints.txt", "constraints-colab.txt", "Makefile", "settings.ini":
        lines = (ROOT/name).read_text(encoding="utf-8").replace(SETTINGS["git_url"], "").splitlines()
        assert not [o for o in lines if "://" in o and "%(user)s" not in o or "index-url" in o
            or "find-links" in o], name


def test_constraints_are_exact_and_enough():
    from packaging.requirements import Requirement
    pins = {n: [Requirement(o) for o in (ROOT/n).read_text().splitlines() if not o.startswith("#")]
        for n in ("constraints.txt", "constraints-colab.txt")}
    norm = lambda o: re.sub(r"[-_.]+", "-", o).lower()
    for rows in pins.values(): assert all(re.fullmatch(r"==[\w.]+", str(o.specifier)) for o in rows)
    for req in map(Requirement, (SETTINGS["requirements"] + " " + SETTINGS["dev_requirements"]).split()):
        here = [o for o in pins["constraints.txt"] if norm(o.name) == norm(req.name)]
        assert here and req.specifier.contains(str(here[0].specifier)[2:]), req
    for req in map(Requirement, SETTINGS["requirements"].split()):
        assert not [o for o in req.specifier if o.operator != ">="], f"{req} has an upper bound"
        there = [o for o in pins["constraints-colab.txt"] if norm(o.name) == norm(req.name)]
        assert norm(req.name) in ("torch", *SETTINGS["colab_adds"].split()) or there and req.specifier.contains(str(there[0].specifier)[2:]), req


def test_colab_gets_no_more_than_the_readme_says():
    "In Colab's environment: pip added what `colab_adds` lists and moved nothing else"
    report = Path(sys.prefix)/"report.json"
    if not report.exists(): pytest.skip("not in the environment of `make colab`")
    added = {o["metadata"]["name"].lower() for o in json.loads(report.read_text())["install"]}
    assert added == {"loranb", *SETTINGS["colab_adds"].split()}
    from importlib.metadata import version
    rows = [o.split("==") for o in (ROOT/"constraints-colab.txt").read_text().splitlines() if not o.startswith("#")]
    assert not [(name, v) for name, v in rows if version(name) != v]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "A wheel built from a copy of the tree"
    there = tmp_path_factory.mktemp("wheel")
    clone = shutil.copytree(ROOT, there/"clone", ignore=left_out)
    subprocess.run([sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "--outdir", there, clone],
        check=True, capture_output=True)
    return next(there.glob("*.whl"))


@needs_nbdev
def test_wheel_carries_everything(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    kept = {short(p) for p in LIB.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.name != "_modidx.py"}
    assert not kept - set(names)
    assert [o for o in names if o.endswith("model.safetensors")] and [o for o in names if o.endswith(".js")]
    assert wheel.stat().st_size < 12e6
    texts = {o.rsplit("/", 1)[-1]: zipfile.ZipFile(wheel).read(o).decode() for o in names
        if o.endswith(("METADATA", "entry_points.txt"))}
    assert "loranb = loranb.cli:main" in texts["entry_points.txt"]
    for o in SETTINGS["requirements"].split(): assert f"Requires-Dist: {o}" in texts["METADATA"]


@needs_nbdev
@pytest.mark.slow
def test_installed_wheel_runs_the_demo(wheel, tmp_path):
    "The main job, from the wheel alone, in a folder that knows nothing of the clone"
    site, work = tmp_path/"site", tmp_path/"work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", site, wheel],
        check=True)
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = python("import loranb; print(loranb.__file__)", cwd=work, env=env).stdout
    assert Path(where.strip()).is_relative_to(site)
    done = python("import sys; sys.argv = ['loranb', 'demo']; from loranb.cli import main; sys.exit(main())", cwd=work,
        env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["exact_match_after"] >= 0.90 and Path(last["adapter"], "adapter_model.safetensors").exists()
