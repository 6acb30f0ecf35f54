"The GPU checks themselves work: their CPU half runs here. What they show of a GPU, only a GPU can."
import importlib.util, json, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest, torch

ROOT = Path(__file__).resolve().parents[1]
GPU, PAGE = ROOT/"tests/gpu", ROOT/"nbs/tutorials/on_a_gpu.ipynb"
CARD_ONLY = ("peak_gb", "kept_mb", "before_gb", "after_gb", "held_to_gb", "it_ran", "plan_says_it_fits", "reserved",
    "context", "evaluation")


def run(*args, folder=GPU):
    return subprocess.run([sys.executable, str(folder/"all.py"), *map(str, args)], capture_output=True, text=True,
        cwd=ROOT)
def rows_of(out): return [json.loads(line) for line in next(out.glob("*.jsonl")).read_text().splitlines()]


def figures(row):
    "The values of a row, also those inside"
    for key, value in row.items():
        yield from ((key, v) for v in value.values()) if isinstance(value, dict) else [(key, value)]


@pytest.mark.slow
def test_every_stage_runs(tmp_path):
    done = run("--minutes", 40, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = rows_of(tmp_path)
    assert list(dict.fromkeys(r["stage"] for r in rows)) == ["first", "memory", "speed", "limits", "giants", "long"]
    assert [line.split(":")[0] for line in done.stdout.splitlines() if ": " in line and "held in" in line] == ["first",
        "memory", "speed", "limits", "giants", "long"]
    assert all(r["ok"] for r in rows) and all(r["device"] for r in rows)
    if torch.cuda.is_available(): return
    assert {r["device"] for r in rows} == {"CPU"} and not [(k, v) for r in rows for k,
        v in figures(r) if k in CARD_ONLY and v is not None]
    assert all(r["resumed_to_the_same_bits"] for r in rows if "resumed_to_the_same_bits" in r)
    assert (tmp_path/"cpu.md").read_text().count("| yes |") == len(rows) and not list(tmp_path.glob("gpu*"))


@pytest.mark.slow
def test_what_fails_dies_or_hangs_does_not_stop_the_rest(tmp_path):
    folder, out = tmp_path/"tests/gpu", tmp_path/"out"
    folder.mkdir(parents=True)
    for name in ("all.py", "bases.py"): shutil.copy(GPU/name, folder)
    (folder/"all.py").write_text((folder/"all.py").read_text().replace("GRACE = 15", "GRACE = 5"))
    fails, fine = "def bad(): raise ValueError('on purpose')", "yield 'fine', lambda: dict(ok=True)"
    stages = dict(first_light=f"{fails}\ndef checks(root):\n    yield 'bad', bad\n    {fine}", memory="import os\ndef checks(root): yield 'dead', lambda: os._exit(7)",
        speed="import time\ndef checks(root): yield 'hangs', lambda: time.sleep(600)", limits="import time\ndef slow(): time.sleep(2.5); return dict(ok=True)\ndef checks(root):\n    yield 'slow', slow\n    yield 'late', slow",
        giants=f"def checks(root): {fine}", long_rows="raise ImportError('nothing here')")
    for name, text in stages.items(): (folder/f"{name}.py").write_text(text)
    done = run("--minutes", .2, "--out", out, folder=folder)
    assert done.returncode == 1, done.stderr
    ends = {(r["stage"], r["name"]): r for r in rows_of(out)}
    assert {k: r["ok"] for k, r in ends.items()} == {("first", "bad"): False, ("first", "fine"): True,
        ("memory", "the stage"): False, ("speed", "the stage"): False, ("limits", "slow"): True,
        ("limits", "late"): None, ("giants", "fine"): True, ("long", "the stage"): False}
    assert "ValueError: on purpose" in ends["first", "bad"]["error"] and ends["speed",
        "the stage"]["error"] == "took too long"


@pytest.mark.slow
def test_what_a_card_is_compared_with_is_planned_here(tmp_path):
    code = (f"import sys, pathlib; sys.path.insert(0, {str(GPU)!r}); import memory; from loranb.memory.gpus import "
        "find_gpu\n" "for c in memory.TINY_CASES: print(memory.predicted(memory.planned(c, "
        "pathlib.Path(sys.argv[1]), find_gpu('H200'))[1]))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = [eval(line) for line in done.stdout.splitlines()]
    assert found and all(0 < o["allocated"] <= o["reserved"] and o["evaluation"] > 0 for o in found)


def page(folder, rows):
    "What the page shows of some results"
    (folder/"tests/gpu/results").mkdir(parents=True)
    (folder/"nbs/tutorials").mkdir(parents=True)
    if rows is not None: (folder/"tests/gpu/results/gpu.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    cells = ["".join(c["source"]) for c in json.loads(PAGE.read_text())["cells"] if c["cell_type"] == "code"]
    shown = [re.sub(r"(?m)^(?=[^\s#].*\Z)", "shown = ", c) if not re.search(r"(?m)^(import|from|print).*\Z", c) else c
        for c in cells]
    code = "\n".join(f"{c}\nif 'shown' in globals(): print(shown); del shown" for c in shown)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder/"nbs/tutorials", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("rows", [None, [],
    [dict(stage="speed", name="NF4, against TRL", device="CPU", began="1", ratio=9.)]])
def test_the_page_shows_no_figure_without_a_card(tmp_path, rows):
    assert set(page(tmp_path, rows).split("\n")) == {"Not measured yet.", ""}


def test_the_page_shows_what_a_card_measured(tmp_path):
    card = dict(device="NVIDIA A card", date="2026-01-01", versions=dict(torch="2"), ok=True, seconds=1)
    old, new = (dict(card, stage="speed", name="NF4, against TRL", began=str(i), ratio=float(i),
        tokens_a_second=dict(loranb=100*i, trl=90)) for i in (1, 2))
    cell = dict(card, stage="memory", name="1B nf4 1x96", began="2", predicted=dict(allocated=2e9),
        measured=dict(allocated=2.1e9), error=dict(allocated=2/2.1 - 1))
    said = page(tmp_path, [old, new, cell])
    assert "NVIDIA A card, 2026-01-01" in said and "-0.048" in said and "200" in said and " 1.0 " not in said and "Not measured" not in said


def test_the_wheels_are_those_of_the_constraints():
    spec = importlib.util.spec_from_file_location("gpu_wheels", ROOT/"tools/gpu_wheels.py")
    wheels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wheels)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", o) for o in wheels.pinned())
    assert wheels.dropped("bitsandbytes/libbitsandbytes_cuda126.so") and not wheels.dropped("bitsandbytes/libbitsandbytes_cuda130.so")
    if (ROOT/".git").exists(): assert wheels.tree_size() < wheels.LIMIT/2, "too little room for the wheels"
