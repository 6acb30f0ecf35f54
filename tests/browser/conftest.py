"""Fixtures for the tests in a real browser. Without Chromium they are skipped in plain sight; with CI=true that is a failure."""
import copy, os, pathlib
import pytest
from lab import CHROMIUM, KERNELS, start

def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents: item.add_marker("browser")

@pytest.fixture(scope="session")
def any_lab(tmp_path_factory):
    if not CHROMIUM:
        reason = "Chromium is missing: install it (Debian: apt-get install chromium) or name it in $CHROMIUM"
        if os.environ.get("CI") == "true": pytest.fail(reason)
        pytest.skip(reason)
    with start(tmp_path_factory.mktemp("lab"), kernels=KERNELS) as lab: yield lab

@pytest.fixture(scope="session", params=KERNELS)
def lab(any_lab, request):
    "A running JupyterLab; what uses it is run with each of the kernels."
    res = copy.copy(any_lab)
    res.kernel = request.param
    return res

@pytest.fixture
def notebook(lab):
    "`lab.notebook`, closed at the end of the test."
    opened = []
    def make(*args, **kw):
        opened.append(lab.notebook(*args, **kw))
        return opened[-1]
    yield make
    for nb in opened: nb.close()
