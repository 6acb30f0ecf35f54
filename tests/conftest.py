"Which tests run where: those that take minutes or a GPU say in plain sight why they are left out"
import os, signal
from collections import Counter
from itertools import chain

import pytest
from hypothesis import settings

# a busy machine is no mistake; CI judges a change, not its luck
settings.register_profile("loranb", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("loranb")
# so begins what a script starts with `&`
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run all: what takes minutes, as CI=true does, and whole tables")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Tests of one file share what they have made, so one process runs them all; a notebook shares nothing"
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if "test_notebooks.py" in nodeid else nodeid.partition("::")[0]

    return ByFile(config, log)


def runs_slow(config):
    "Is what takes minutes asked for?"
    return config.getoption("--slow") or os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def slow(request): return runs_slow(request.config)


@pytest.fixture(scope="session")
def matrix(request): return request.config.getoption("--slow")


def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") and not runs_slow(item.config): pytest.skip("takes minutes; --slow or CI=true runs it")
    if item.get_closest_marker("matrix") and not item.config.getoption("--slow"): pytest.skip("one of many; --slow runs all")
    if item.get_closest_marker("gpu"):
        import torch
        if not torch.cuda.is_available(): pytest.skip("needs a CUDA device")


def pytest_terminal_summary(terminalreporter):
    "Where the minutes went: seconds by file, so that a suite that grows is seen to grow"
    cost = Counter()
    for r in chain.from_iterable(terminalreporter.stats.values()):
        if hasattr(r, "duration"): cost[r.nodeid.partition("::")[0]] += r.duration
    terminalreporter.section("seconds by file")
    for name, seconds in cost.most_common(): terminalreporter.line(f"{seconds:6.0f}  {name}")
