"Where the real base lies; without it these tests are left out, and say what makes it"
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("LORANB_REAL") or ROOT/".real").absolute()
NEEDED = FOLDER/"smollm2"/"model.safetensors", FOLDER/"translate.jsonl"


def pytest_runtest_setup(item):
    if item.get_closest_marker("real") and not all(o.is_file() for o in NEEDED):
        pytest.skip("needs a real base: `python tools/real_base.py .real`, or its folder in LORANB_REAL")


@pytest.fixture(scope="session")
def real(): return FOLDER
