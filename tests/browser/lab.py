"""A real JupyterLab in headless Chromium, driven from Python: a private server on a free port, and notebooks as objects.

    with chromium() as browser, start(folder, browser) as lab:
        nb = lab.notebook(["1+1", "print('two')"])
        nb.run(0); nb.run(1); nb.wait_idle()
        assert nb.output(1) == "two" and not nb.errors

Needs jupyterlab and playwright from PyPI and a Chromium of the system ($CHROMIUM, or `chromium` on the path); playwright downloads no browser of its own.
Lab runs with settings, workspaces and configuration of its own inside `folder`, which it wipes first: nothing of the user's is read or changed.
"""
import contextlib, importlib.metadata, itertools, json, os, pathlib, secrets, shutil, socket, subprocess, sys, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}, # no questions, no calls home
            "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}                             # cells off screen stay in the page
LAB_ARGS = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.expose_app_in_browser=True"] # the last gives window.jupyterapp

KERNELS = {"installed": None} # name: version of ipykernel, None for the one installed
for v in ["6.17.1", os.environ.get("IPYKERNEL")]: # what Colab ships, and one more for a look by hand
    if v and v != importlib.metadata.version("ipykernel"): KERNELS[v] = v

def old_ipykernel(version):
    "The folder with that ipykernel, to put first on a kernel's PYTHONPATH; installed there (without dependencies) when it is missing."
    folder = pathlib.Path(sys.prefix)/f"ipykernel-{version}"
    if not (folder/"ipykernel").exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder),
            f"ipykernel=={version}"], check=True)
    return folder

def write_kernelspec(data, name, pythonpath, env):
    "A kernel `name` of this Python, with folders put before its path and variables in its environment."
    spec = dict(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name=name,
        language="python", env={**env, "PYTHONPATH": os.pathsep.join(map(str, pythonpath))})
    folder = data/"kernels"/name
    folder.mkdir(parents=True)
    (folder/"kernel.json").write_text(json.dumps(spec))

@contextlib.contextmanager
def chromium():
    "A headless browser; playwright allows one at a time in a process."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGS)
        try: yield browser
        finally: browser.close()

@contextlib.contextmanager
def start(folder, browser, kernels=None, pythonpath=(), env=None, settings=None):
    """A `Lab` whose notebooks lie in `folder` and are opened in `browser`.

    kernels: {name: ipykernel version, or None for the one installed}; {"python3": None} when not given.
    pythonpath, env: more folders and variables for every kernel (the repository is always on the path). settings: {"package:plugin": {...}} for JupyterLab."""
    folder = pathlib.Path(folder).resolve()
    own = folder/".lab"
    shutil.rmtree(own, ignore_errors=True)
    for name, value in {**SETTINGS, **(settings or {})}.items():
        file = own/"settings"/f"{name.replace(':', '/')}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    for name, version in (kernels or {"python3": None}).items():
        write_kernelspec(own/"data", name, [*([old_ipykernel(version)] if version else []), ROOT, *pythonpath],
            env or {})
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token, log = secrets.token_hex(8), folder/"jupyterlab.log"
    environ = dict(os.environ, JUPYTER_CONFIG_DIR=str(own/"config"), JUPYTER_DATA_DIR=str(own/"data"),
        JUPYTERLAB_SETTINGS_DIR=str(own/"settings"), JUPYTERLAB_WORKSPACES_DIR=str(own/"workspaces"),
        IPYTHONDIR=str(own/"ipython"))
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *LAB_ARGS, f"--port={port}",
            f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"],
            stdout=stack.enter_context(open(log, "w")), stderr=subprocess.STDOUT, env=environ)
        stack.callback(_end, server)
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: _answers(f"{url}/api/status?token={token}") or _alive(server, log), 60,
            "JupyterLab did not start")
        yield Lab(folder, url, token, browser, next(iter(kernels or {"python3": None})))

def _end(server):
    server.terminate()
    try: server.wait(15)
    except subprocess.TimeoutExpired: server.kill()

def _answers(url):
    try: return bool(urllib.request.urlopen(url, timeout=2).read())
    except OSError: return False

def _alive(server, log):
    if server.poll() is not None: raise RuntimeError(log.read_text()[-3000:])

def _wait(cond, timeout, what):
    end = time.time()+timeout
    while not (res := cond()):
        if time.time() > end: raise TimeoutError(what() if callable(what) else what)
        time.sleep(0.1)
    return res

class Lab:
    "A running JupyterLab and browser. `kernel` is the kernel that notebooks get."
    def __init__(self, folder, url, token, browser, kernel):
        self.folder, self.url, self.token, self.browser, self.kernel = folder, url, token, browser, kernel
        self._count = itertools.count(1)

    def notebook(self, cells=None, path=None, size=(1180, 900), dark=False):
        "Open a notebook and wait until its kernel is ready: a new one with these code cells, or the one at `path` (relative to `folder`)."
        import nbformat
        if path is None:
            path = f"test{next(self._count)}.ipynb"
            nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
            nb.metadata.kernelspec = dict(name=self.kernel, display_name=self.kernel, language="python")
            nbformat.write(nb, self.folder/path)
        res = Notebook(self.browser.new_page(viewport=dict(width=size[0], height=size[1])),
            f"{self.url}/doc/tree/{path}?token={self.token}&reset")
        if dark: res.theme("dark")
        return res

NB = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{NB}.sessionContext.session.kernel"
READY = f"""async () => {{ const app = window.jupyterapp; if (!app) return false; await app.restored;
    const w = app.shell.currentWidget; if (!w || !w.sessionContext) return false;
    await w.context.ready; await w.sessionContext.ready; const k = w.sessionContext.session?.kernel; if (!k) return false;
    await k.info; return k.connectionStatus === 'connected' && k.status === 'idle' }}"""  # a cell that is run before this is silently dropped
WAITING = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(e => e.textContent.includes('*'))"

class Notebook:
    "A notebook open in the browser. `page` is playwright's Page, `errors` what the page's console has called an error."
    def __init__(self, page, url):
        self.page, self.errors = page, []
        page.set_default_timeout(20_000)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.goto(url)
        _wait(self._ready, 60, "the notebook's kernel did not get ready")

    def _ready(self):
        try: return self.page.evaluate(READY) # wait_for_function takes a promise for true
        except Exception as e:
            if "navigation" in str(e) or "destroyed" in str(e): return False
            raise

    def command(self, name, **args):
        "Execute a command of JupyterLab by its id, without waiting for it to finish."
        self.page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args) }", [name, args])

    def run(self, i):
        "Start code cell `i`, or queue it behind the one that runs; returns at once."
        self.page.evaluate(f"""i => {{ const nb = {NB}.content, cells = nb.widgets.map((w, j) => [w, j]).filter(([w, j]) => w.model.type === 'code');
            nb.activeCellIndex = cells[i][1]; nb.deselectAll(); window.jupyterapp.commands.execute('notebook:run-cell') }}""", i)

    def run_all(self): self.command("notebook:run-all-cells")
    def interrupt(self): self.command("kernelmenu:interrupt")
    def restart(self):
        "Restart the kernel and wait until it is ready."
        self.page.evaluate(f"async () => {{ await {KERNEL}.restart() }}")
        _wait(self._ready, 60, "the kernel did not come back")
    def save(self): self.page.evaluate(f"async () => {{ await {NB}.context.save() }}")
    def reload(self):
        "Load the page again; the kernel stays."
        self.page.reload()
        _wait(lambda: self._ready() or self._busy(), 60, "the page did not come back")
    def _busy(self):
        try: return self.status() == "busy"
        except Exception: return False
    def close(self):
        "Close the page and end its kernel."
        with contextlib.suppress(Exception):
            self.page.evaluate(f"async () => {{ await {NB}.sessionContext.shutdown() }}")
        self.page.close()

    def status(self):
        "What the page believes of its kernel: idle, busy, ..."
        return self.page.evaluate(f"() => {KERNEL}.status")
    def waiting(self):
        "Does any cell show [*]?"
        return self.page.evaluate(f"() => {WAITING}")
    def wait_idle(self, timeout=60):
        "Wait until the kernel is idle and no cell shows [*]."
        _wait(lambda: self.status() == "idle" and not self.waiting(), timeout,
            lambda: f"still {self.status()}; outputs so far: {self.outputs()}")

    def cell(self, i): return self.page.locator(".jp-Notebook .jp-CodeCell").nth(i)
    def output(self, i):
        "The text of code cell `i`'s output as it is seen."
        return "\n".join(self.cell(i).locator(".jp-OutputArea-output").all_inner_texts()).strip()
    def outputs(self): return [self.output(i) for i in range(self.page.locator(".jp-Notebook .jp-CodeCell").count())]
    def wait_output(self, i, text, timeout=20):
        "Wait until the output of code cell `i` has `text`."
        _wait(lambda: text in self.output(i), timeout, lambda: f"no {text!r} in {self.output(i)!r}")

    def theme(self, name):
        "Set the theme, `light` or `dark`."
        self.command("apputils:change-theme", theme=f"JupyterLab {name.title()}")
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{str(name == 'light').lower()}'")
    def size(self, width, height): self.page.set_viewport_size(dict(width=width, height=height))
    def shot(self, path, selector=None):
        "A PNG of the page, or of the first element that `selector` finds."
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        (self.page.locator(selector).first if selector else self.page).screenshot(path=str(path))
