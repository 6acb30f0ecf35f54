"Which tests run where: those for a browser, a GPU or a long wait say in plain sight why they are left out"
import os, shutil

import pytest

CI = os.environ.get("CI", "").lower() in ("1", "true")
BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"


def find_chromium():
    "Path of a Chromium, or None; the variable CHROMIUM goes first"
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_addoption(parser): parser.addoption("--slow", action="store_true", help="run what takes minutes, as CI=true does")


def pytest_runtest_setup(item):
    marks = {m.name for m in item.iter_markers()}
    if "slow" in marks and not (CI or item.config.getoption("--slow")): pytest.skip("takes minutes: --slow or CI=true runs it")
    if "browser" in marks and not find_chromium():
        words = "no Chromium found: apt-get install chromium, or set CHROMIUM to one"
        if CI: pytest.fail(words)
        pytest.skip(words)
    if "gpu" in marks:
        import torch
        if not torch.cuda.is_available(): pytest.skip("needs a CUDA device")


@pytest.fixture
def chromium(): return find_chromium()
