"The quickstart as a person uses it: slider, Train, pictures that move, Stop, a queued cell, Resume; and finetune with an interrupt."
import json, os, pathlib, time

import nbformat, pytest

ROOT = pathlib.Path(__file__).parents[2]
SHOTS = ROOT/"shots"
STEPS = 140  # enough to be stopped between


def quickstart(lab, name, **changes):
    "The real notebook in the lab's folder, its run long enough to be stopped; returns code cells by a word of theirs."
    nb = nbformat.read(ROOT/"nbs/tutorials/quickstart.ipynb", 4)
    nb.metadata.kernelspec = dict(name=lab.kernel, display_name=lab.kernel, language="python")
    nb.cells = [c for c in nb.cells if "![" not in c.source]  # pictures of the page around it are not fetched
    for c in nb.cells:
        for old, new in changes.values(): c.source = c.source.replace(old, new)
    nbformat.write(nb, lab.folder/name)
    codes = [c.source for c in nb.cells if c.cell_type == "code"]
    return lambda word: next(i for i, c in enumerate(codes) if word in c)


def button(nb, name): return nb.page.get_by_role("button", name=name, exact=True)


class Redraws:
    "Counts how often a picture has changed."
    def __init__(self, nb, selector): self.where, self.seen = nb.page.locator(selector).first, set()
    def look(self): self.seen.add(self.where.inner_html()); return len(self.seen)


def until(cond, timeout, what):
    end = time.time() + timeout
    while not cond():
        assert time.time() < end, what
        time.sleep(.1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_kernel")
def test_quickstart_studio(lab, tmp_path):
    at = quickstart(lab, "studio.ipynb", shorter=('quant="nf4", r=8))', f'quant="nf4", r=8, max_steps={STEPS}))'))
    nb = lab.notebook(path="studio.ipynb", size=(1180, 1500))
    try:
        studio = at("Studio(Recipe")
        nb.run(at("from loranb import")), nb.run(studio)
        nb.page.locator(".lrb.monitor").wait_for(timeout=90_000)
        nb.wait_idle(90)

        slider = nb.page.locator(".lrb.rank input[type=range]")
        slider.focus()
        slider.press("ArrowLeft"), slider.press("ArrowRight"), slider.press("ArrowRight")
        until(lambda: "r 16" in nb.page.locator(".lrb.flow").inner_text(), 10,
            "the rank slider does not move the recipe")
        assert "r=16" in nb.page.locator(".lrb.code").inner_text()
        slider.press("ArrowLeft")
        until(lambda: "r=8" in nb.page.locator(".lrb.code").inner_text(), 10, "the code does not follow")

        height = nb.page.locator(".lrb.monitor").bounding_box()["height"]
        button(nb, "Train").click()
        loss, spectrum = Redraws(nb, ".lrb.monitor svg"), Redraws(nb, ".lrb.spectrum svg")
        until(lambda: min(loss.look(), spectrum.look()) > 5, 90, "the pictures do not move")
        assert button(nb, "Stop").is_enabled(), "it ended before there were five redraws"
        nb.run(at("studio.run"))  # queued behind the training
        stop_at = time.time()
        button(nb, "Stop").click()
        button(nb, "Resume").wait_for(timeout=30_000)
        nb.wait_idle(60)
        assert "stopped" in nb.page.locator(".lrb.monitor").inner_text() and time.time() - stop_at < 30
        assert nb.page.locator(".lrb.monitor").bounding_box()["height"] == height
        assert "stopped" in nb.output(at("studio.run")) or "Loss" in nb.output(at("studio.run"))
        run = sorted((lab.folder/"runs").glob("*"), key=lambda p: p.stat().st_mtime)[-1]
        events = [json.loads(l) for l in (run/"events.jsonl").read_text().splitlines()]
        steps = [e["step"] for e in events if e["type"] == "step"]
        assert events[-1]["type"] == "stop" and (run/f"checkpoint-{steps[-1]}").is_dir() and (run/"adapter"/"adapter_model.safetensors").is_file()
        assert steps == list(range(1, len(steps) + 1)) and len(steps) < STEPS

        button(nb, "Resume").click()
        button(nb, "Train again").wait_for(timeout=180_000)
        nb.wait_idle(60)
        events = [json.loads(l) for l in (run/"events.jsonl").read_text().splitlines()]
        assert events[-1]["type"] == "done" and [e["step"] for e in events if e["type"] == "step"] == list(range(1,
            STEPS + 1))
        assert all(ok for ok, _ in events[-1]["checks"])

        nb.page.locator(".lrb.layermap [tabindex='0']").first.focus()
        before = nb.page.locator(".lrb.course").inner_text()
        nb.page.keyboard.press("ArrowRight"), nb.page.keyboard.press("Enter")
        until(lambda: nb.page.locator(".lrb.course").inner_text() != before, 5, "the views are not linked")
        cut = nb.page.locator(".lrb.spectrum .cutfigs").inner_text()
        nb.page.get_by_label("Cut to rank k").press("ArrowLeft")
        until(lambda: nb.page.locator(".lrb.spectrum .cutfigs").inner_text() != cut, 5,
            "the cut does not follow its slider")
        nb.page.get_by_label("Step shown").press("Home")
        until(lambda: "step 1" in nb.page.locator(".lrb.layermap").inner_text()
            and "step 1" in nb.page.locator(".lrb.spectrum").inner_text(), 5,
            "the views do not go back in time together")
        nb.page.get_by_label("Step shown").press("End")
        for question, panel in (("Which directions matter?", ".lrb.directions"), ("Can I shrink it?", ".lrb.trim")):
            nb.page.get_by_role("button", name=question).click()
            nb.page.locator(f"{panel} svg").first.wait_for(timeout=30_000)
        assert "run.adapter.trim(" in nb.page.locator(".lrb.trim").inner_text()
        if lab.kernel == "installed":
            for theme in ("light", "dark"):
                nb.theme(theme)
                for width in (1180, 800):
                    nb.size(width + 190, 3300)
                    time.sleep(.8)
                    nb.size(width + 190, int(nb.page.locator(".lrb-studio").first.bounding_box()["height"]) + 300)
                    time.sleep(.4)
                    nb.shot(SHOTS/f"studio-{theme}-{width}.png", ".lrb-studio")
                    if width == 1180:
                        nb.shot(SHOTS/f"views-{theme}.png", ".lrb-g3"), nb.shot(SHOTS/f"more-{theme}.png", ".lrb-g2e")
        assert not nb.errors, nb.errors
    finally: nb.close()


@pytest.mark.usefixtures("one_kernel")
@pytest.mark.slow
def test_quickstart_finetune_and_interrupt(lab):
    at = quickstart(lab, "finetune.ipynb", longer=("max_steps=120", "max_steps=4000"))
    nb = lab.notebook(path="finetune.ipynb", size=(1180, 1500))
    try:
        train, ask = at("run = finetune"), at("run.generate")
        nb.run(at("from loranb import"))
        nb.run(at("recipe = Recipe("))
        nb.run(train)
        live = nb.cell(train).locator(".lrb.monitor")
        live.wait_for(timeout=60_000)
        until(lambda: "training" in live.inner_text(), 60, "it does not train")
        nb.run(ask)
        picture = nb.cell(train).locator(".lrb.monitor svg").first
        seen = set()
        until(lambda: seen.add(picture.inner_html()) or len(seen) > 5, 60, "the loss does not move")
        assert nb.waiting()
        nb.interrupt()
        until(lambda: "stopped" in live.inner_text(), 60, "the interrupt did not stop it")
        nb.wait_idle(60)
        assert "Traceback" not in nb.output(train) and "Interrupt" not in nb.output(train)
        assert nb.output(ask), "the queued cell has not run"
        assert not nb.errors, nb.errors
    finally: nb.close()


@pytest.mark.usefixtures("one_kernel")
def test_stop_button_under_finetune(lab):
    nb = lab.notebook(["from loranb import Recipe, finetune\nprint('before')",
        "run = finetune(Recipe(r=4, max_steps=4000, save_steps=0))\nprint('same cell')", "print(run.state, run.steps)",
        "print('last')"])
    try:
        nb.run(0), nb.run(1), nb.run(2), nb.run(3)
        live = nb.cell(1).locator(".lrb.monitor")
        live.wait_for(timeout=90_000)
        until(lambda: "training" in live.inner_text(), 60, "it does not train")
        time.sleep(2)
        button(nb, "Stop").click()
        nb.wait_output(3, "last", 60)
        state, steps = nb.output(2).split()
        assert state == "stopped" and 0 < int(steps) < 4000
        assert "same cell" in nb.output(1) and nb.output(3) == "last"
        assert not nb.errors, nb.errors
    finally: nb.close()
