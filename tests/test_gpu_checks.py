"The GPU checks themselves work: their CPU half runs here. What they show of a GPU, only a GPU can."
import importlib.util, json, pathlib, subprocess, sys

import torch

SCRIPT = pathlib.Path(__file__).parent/"gpu/first_light.py"


def test_first_light_runs(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("first_light*.json")).read_text())
    assert result["policy"]["T4 (7.5)"] == "torch.float16" and result["policy"]["A100 (8.0)"] == "torch.bfloat16"
    if not torch.cuda.is_available(): assert all(c["resumed to the same bits"] for c in result["cases"])


def test_the_grid_of_memory_runs(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT.with_name("memory.py")), "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(next(tmp_path.glob("memory*.json")).read_text())
    assert result["worst"] <= .05 and result["median"] <= .03 and all(c["ran"] for c in result["cases"])


def test_train_runs(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT.with_name("train.py")), "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("train*.json")).read_text())
    assert result["fails"]["failed in a sentence"] and result["fails"]["the smaller run works"] and result["t4"]["policy of 7.5"] == "torch.float16"
