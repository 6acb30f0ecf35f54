"""Fixtures for the tests in a real browser. Without Chromium they are skipped in plain sight; with CI=true that is a failure."""
import copy, os, pathlib
import pytest
from lab import CHROMIUM, KERNELS, chromium, start
from page import panel_page

def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents: item.add_marker("browser")

@pytest.fixture(scope="session")
def browser():
    "The one browser of the session."
    if not CHROMIUM:
        reason = "Chromium is missing: install it (Debian: apt-get install chromium) or name it in $CHROMIUM"
        if os.environ.get("CI") == "true": pytest.fail(reason)
        pytest.skip(reason)
    with chromium() as b: yield b

@pytest.fixture(scope="session")
def any_lab(tmp_path_factory, browser):
    with start(tmp_path_factory.mktemp("lab"), browser, kernels=KERNELS) as lab: yield lab

@pytest.fixture
def show(browser):
    "`show(*widgets)` puts panels on a static page; what went wrong on it fails the test."
    pages = []
    def make(*widgets, **kw):
        pages.append(panel_page(browser, *widgets, **kw))
        pages[-1].wait_for_timeout(60)
        return pages[-1]
    yield make
    for p in pages:
        assert not p.errors
        p.close()

# the kernel that is installed always, the other one with --slow
@pytest.fixture(scope="session", params=[pytest.param(k, marks=[pytest.mark.slow]*bool(i))
    for i, k in enumerate(KERNELS)])
def lab(any_lab, request):
    "A running JupyterLab; what uses it is run with each of the kernels."
    res = copy.copy(any_lab)
    res.kernel = request.param
    return res

@pytest.fixture
def one_kernel(lab, matrix):
    "For what takes minutes: the other kernel only in the matrix"
    if lab.kernel != "installed" and not matrix: pytest.skip("minutes on another kernel; --slow runs it")

@pytest.fixture
def notebook(lab):
    "`lab.notebook`, closed at the end of the test."
    opened = []
    def make(*args, **kw):
        opened.append(lab.notebook(*args, **kw))
        return opened[-1]
    yield make
    for nb in opened: nb.close()
