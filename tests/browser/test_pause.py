"Pause by a click, sample in other cells, Resume by a click, and the adapter of a run that never paused"
import hashlib, sys, time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/"soak"))
from tiny import tiny_base

SHOTS = Path(__file__).resolve().parents[2]/"shots"
SETUP = """from loranb import Recipe, finetune
import time
rows = [{{"prompt": f"{{i}} and {{j}} is", "completion": f" {{i + j}}"}} for i in range(8) for j in range(8)]
recipe = Recipe(model={base!r}, data=rows, r=2, max_steps=120, save_steps=50, eval_steps=30, test_size=4, per_device_train_batch_size=2, gradient_accumulation_steps=1,
    gradient_checkpointing=False, learning_rate=1e-2, lora_dropout=.1, max_length=32)"""
CELLS = [SETUP, "from loranb.train.run import Run\nrun = Run(recipe, 'paused')\nrun.on(lambda e: time.sleep(.05) if "
    "e['type'] == 'step' else None).train()\nprint('ended', run.state)",
    "import torch; torch.manual_seed(5)\nanswers = run.generate([r['prompt'] for r in rows[:20]], "
    "4)\nprint(len(answers), run.state, run.steps)", "print(run.state, run.steps)",
    "w = Run(recipe, 'whole').train(); print(w.state)"]


def button(nb, name): return nb.page.get_by_role("button", name=name, exact=True)


def until(cond, timeout, what):
    end = time.time() + timeout
    while not cond():
        assert time.time() < end, what() if callable(what) else what
        time.sleep(.1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_kernel")
def test_pause_sample_and_resume_by_click(lab):
    base = tiny_base(lab.folder/f"base-{lab.kernel}")
    cells = [c.replace("'paused'", f"'paused-{lab.kernel}'").replace("'whole'", f"'whole-{lab.kernel}'") for c in CELLS]
    nb = lab.notebook([cells[0].format(base=base), *cells[1:]], size=(1180, 1300))
    try:
        nb.run(0), nb.run(1)
        monitor = nb.cell(1).locator(".lrb.monitor")
        monitor.wait_for(timeout=120_000)
        until(lambda: "training" in monitor.inner_text() and "step 5" in monitor.inner_text(), 120,
            lambda: monitor.inner_text())
        nb.run(2)  # queued behind the training
        height = monitor.bounding_box()["height"]
        button(nb, "Pause").click()
        until(lambda: "paus" in monitor.inner_text(), 10, lambda: monitor.inner_text())
        nb.wait_output(2, "20 paused", 90)
        steps = int(nb.output(2).split()[-1])
        assert "ended paused" in nb.output(1) and "paused" in monitor.inner_text() and 0 < steps < 120 and monitor.bounding_box()["height"] == height
        if lab.kernel == "installed":
            for theme in ("light", "dark"):
                nb.theme(theme)
                time.sleep(.5)
                nb.shot(SHOTS/f"paused-{theme}.png", ".lrb.monitor")
        button(nb, "Resume").focus()
        nb.page.keyboard.press("Enter")
        until(lambda: "done" in monitor.inner_text(), 120, lambda: monitor.inner_text())
        nb.wait_idle(60)
        nb.run(3)
        nb.wait_output(3, "done 120", 30)
        nb.run(4)
        nb.wait_output(4, "done", 120)
        a, b = (hashlib.sha256((lab.folder/f"{n}-{lab.kernel}"/"adapter"/"adapter_model.safetensors").read_bytes()).hexdigest() for n in ("paused", "whole"))
        assert a == b and not nb.errors, nb.errors
    finally: nb.close()


@pytest.mark.slow
def test_stop_while_the_model_loads(lab):
    base = tiny_base(lab.folder/f"slow-{lab.kernel}")
    slow = ("import loranb.train.run, time\nfrom loranb.train.run import Run\ndef load_base(*args):\n    for i in "
        "range(1200): time.sleep(.05)\nloranb.train.run.load_base = load_base\nrun = Run(recipe, "
        "'slow').train()\nprint('ended', run.state, run.steps)")
    nb = lab.notebook([SETUP.format(base=base), slow.replace("'slow'", f"'slow-run-{lab.kernel}'"), "print('next')"])
    try:
        nb.run(0), nb.run(1), nb.run(2)
        monitor = nb.cell(1).locator(".lrb.monitor")
        monitor.wait_for(timeout=120_000)
        until(lambda: "loading" in monitor.inner_text(), 60, lambda: monitor.inner_text())
        time.sleep(.5)
        button(nb, "Stop").click()
        asked = time.time()
        nb.wait_output(1, "ended stopped 0", 20)
        assert time.time() - asked < 10 and "Traceback" not in nb.output(1)
        nb.wait_output(2, "next", 20)
        assert not (lab.folder/f"slow-run-{lab.kernel}").exists() and "stopped" in monitor.inner_text() and not nb.errors, nb.errors
    finally: nb.close()
