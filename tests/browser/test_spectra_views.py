"""The linked views of the spectra in Chromium: the k slider, the map and the time slider move what they should, and say what Python says"""
import re

import numpy as np
import pytest
from loranb.core import texts
from loranb.spectra import readings
from loranb.spectra import pictures
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum
from loranb.widgets.see.trim_views import Directions, TrimAdvisor
from page import message, receive

KINDS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
VIEWS = LayerMap, Spectrum, Course
LINK = """names => { for (const name of names) for (const a of models) a.on("change:" + name, () => { for (const b of models) { b.set(name, a.get(name)); b.save_changes(); } }); }"""


def learning(layers=4, r=16, count=15, seed=0):
    "Modules, and frames of pretended learning of which every fifth carries what was measured"
    rng, modules = np.random.default_rng(seed), [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=192, n=512, r=r,
        scaling=2.0) for l in range(layers) for k in KINDS]
    n = len(modules)
    final = np.outer([0.1 + 0.1*m["layer"] + 0.5*(m["kind"] in KINDS[4:]) for m in modules],
        0.78**(np.arange(r)*16/r))*rng.uniform(0.7, 1.3, (n, r))
    slope, share, frames = rng.lognormal(0, 1, (n, r))*.03, rng.uniform(.01, .3, n), []
    for i, t in enumerate(np.linspace(20, 300, count).astype(int)):
        s = np.sort(np.tanh(t/100)*final + 0.05*np.sqrt(t/300), 1)[:, ::-1]
        more = dict(aware=s**1.3, effect=s*slope, share=share*np.tanh(t/100), chance=share/20,
            relative=np.linalg.norm(s, axis=1)/40, drift=np.full(n, t/1000))
        frames.append((int(t), s, np.full((n, 2), (0.055, 0.085))*np.sqrt(t/300), more if i % 5 == 2 else {}))
    return modules, frames


def fed(view, modules, frames, **kw):
    v = view(modules, **kw)
    for *f, more in frames: v.append(*f, **more)
    v.flush(True)
    return v


@pytest.fixture
def linked(show):
    "The three views side by side on one page, linked as `link_views` links them in a front end"
    def make(modules, frames, width=380, **kw):
        views = [fed(v, modules, frames, **kw) for v in VIEWS]
        page = show(*views, width=width, columns=3)
        page.evaluate(LINK, ["selected", "at"])
        return page, views
    return make


def text(page, selector): return page.text_content(selector).replace("\xa0", " ")
def drag(page, slider, share):
    "Pull the knob of a range input to a share of its track"
    box = slider.bounding_box()
    y, was = box["y"] + box["height"]/2, float(slider.evaluate("e => (e.value - e.min)/(e.max - e.min)"))
    page.mouse.move(box["x"] + 8 + was*(box["width"] - 16), y)
    page.mouse.down()
    for f in np.linspace(was, share, 6): page.mouse.move(box["x"] + 8 + f*(box["width"] - 16), y)
    page.mouse.up()
    page.wait_for_timeout(60)


def agree(page, views):
    "Every view says what its Python side says"
    page.wait_for_timeout(60)
    for v, said in zip(views, page.locator(".read").all_text_contents()):
        assert v.reading() == said.replace("\xa0", " ")


def test_the_k_slider(linked):
    modules, frames = learning()
    page, views = linked(modules, frames, selected="layers.2.up_proj")
    spectrum, slider = views[1], page.get_by_label("Cut to rank k")
    figures = lambda: [o.replace("\xa0", " ") for o in page.locator(".cutfigs .v").all_text_contents()]
    k99 = int(slider.input_value())
    assert k99 == readings.spectrum_figures(spectrum._last()[0])["k99"] and text(page,
        ".cutrow b") == f"Cut to k = {k99} of 16"
    drag(page, slider, 0.2)
    assert page.evaluate("models.map(m => m.get('k'))")[1] == int(slider.input_value()) == 4
    for key, k in (("ArrowRight", 5), ("End", 16), ("Home", 1), ("ArrowUp", 2)):
        slider.press(key)
        page.wait_for_timeout(60)
        spectrum.k, row = k, None
        row = spectrum.frame().iloc[k-1]
        worst = f"{texts.number_text(row.worst)}·‖x‖" if row.worst else "0"
        assert figures() == [worst, texts.percent_text(row.expected), "not measured",
            f"{texts.number_text(100*row.share)} %", texts.bytes_text(row.bytes), texts.bytes_text(row.adapter_bytes)]
        assert text(page, ".spectrum svg text.cut") == f"cut at k = {k}" or k == k99
        agree(page, views)
    receive(page, 1, errors={"layers.2.up_proj": {"2": 0.0312}})
    page.wait_for_timeout(60)
    assert figures()[2] == "3.1 %"
    page.get_by_role("button", name="99 %").click()
    page.wait_for_timeout(60)
    assert int(slider.input_value()) == k99 and page.evaluate("models[1].get('k')") == 0


def test_the_knob_stands_under_its_stem(linked):
    modules, frames = learning()
    for width in 282, 560:
        page, _ = linked(modules, frames, width=width)
        box, circles = page.get_by_label("Cut to rank k").bounding_box(), [c.bounding_box()
            for c in page.locator(".spectrum circle.stem, .spectrum circle.quiet").all()]
        middle = lambda b: b["x"] + b["width"]/2
        assert abs(box["x"] + 7.5 - middle(circles[0])) < 1 and abs(box["x"] + box["width"] - 7.5
            - middle(circles[-1])) < 1


def test_a_module_chosen_in_the_map(linked):
    modules, frames = learning()
    page, views = linked(modules, frames, selected="layers.2.up_proj")
    page.locator("[role=gridcell][aria-label^='layers.0.k_proj']").click()
    for v in views: v.selected = "layers.0.k_proj"
    agree(page, views)
    assert [e.text_content() for e in page.locator(".sub .mono").all()] == ["layers.0.k_proj"]*2 and page.locator("[aria-selected]").get_attribute("aria-label").startswith("layers.0.k_proj")


@pytest.mark.parametrize("metric", [*readings.METRICS])
def test_every_colour_says_what_python_says(linked, metric):
    modules, frames = learning()
    page, views = linked(modules, frames)
    page.get_by_label("Colour by").select_option(metric)
    views[0].metric = metric
    agree(page, views)
    lo, hi, mark = readings.map_scale(modules, views[0].frame()[metric], metric, frames[-1][2],
        views[0].measured("chance")[0])
    fmt = readings.map_format(metric)
    assert page.locator(".scale .row span").all_text_contents() == [fmt(lo), fmt(hi)]
    assert (f"would give {fmt(mark)}" in text(page, ".note")) == (mark == mark)


def test_the_card_of_a_module(linked):
    modules, frames = learning()
    page, (layers, *_) = linked(modules, frames)
    page.locator("[role=gridcell][aria-label^='layers.3.v_proj']").hover()
    row = layers.frame().set_index("module").loc["layers.3.v_proj"]
    said = text(page, ".peek")
    for words in ("layers.3.v_proj", "192 × 512", "r 16 · scaling 2", f"size ‖ΔW‖ {texts.number_text(row.norm)}",
            f"output share {texts.percent_text(row.share)}*", f"* measured at step {frames[12][0]}"):
        assert words in said
    assert page.locator(".peek .stems").get_attribute("d").count("M") == 16
    page.mouse.move(5, 5)
    assert page.locator(".peek").is_hidden()


def test_the_time_slider_takes_all_views_back(linked):
    modules, frames = learning()
    page, views = linked(modules, frames)
    slider = page.get_by_label("Step shown")
    assert text(page, ".where") == "step 300 of 300"
    drag(page, slider, 0.5)
    slider.press("ArrowRight")
    page.wait_for_timeout(60)
    at = page.evaluate("models.map(m => m.get('at'))")
    assert len(set(at)) == 1 and at[0] in [f[0] for f in frames[5:10]]
    for v in views: v.at = at[0]
    agree(page, views)
    assert [e.text_content() for e in page.locator("h3 .when").all()] == [f"step {at[0]}"]*3 and text(page,
        ".cutfigs").count("expected, step") == 1
    slider.press("Home")
    for v in views: v.at = 20
    agree(page, views)
    assert text(page, ".layermap .read") == "Not measured yet: output share." and page.locator(".cell.unknown").count() == 28 and "not known" in text(page, ".cutfigs")
    slider.press("End")
    for v in views: v.at = -1
    agree(page, views)
    assert page.evaluate("models.map(m => m.get('at'))") == [-1]*3 and page.locator("h3 .when:not(:empty)").count() == 0


def test_the_run_is_replayed(linked):
    modules, frames = learning()
    page, views = linked(modules, frames)
    page.evaluate("() => { window.seen = [[], [], []]; models.forEach((m, i) => m.on('change:at', () => "
        "seen[i].push(m.get('at')))); }")
    page.get_by_role("button", name="Replay the run").click()
    page.wait_for_function("seen[2].length > 3")
    page.get_by_role("button", name="Pause").click()
    seen, steps = page.evaluate("seen"), [f[0] for f in frames]
    assert seen[0] == seen[1] == seen[2] == steps[:len(seen[0])]
    for v in views: v.at = seen[0][-1]
    agree(page, views)
    page.get_by_role("button", name="Replay the run").click()
    page.wait_for_function("seen[0].at(-1) === -1", timeout=15_000)
    page.wait_for_timeout(60)
    assert page.evaluate("seen[1]") == [*steps[:-1], -1] and page.get_by_role("button",
        name="Replay the run").count() == 1


def test_a_past_step_stays_while_the_run_goes_on(linked):
    modules, frames = learning()
    page, views = linked(modules, frames[:8])
    page.get_by_label("Step shown").press("ArrowLeft")
    page.wait_for_timeout(60)
    at, before = page.evaluate("models[0].get('at')"), page.locator(".read").all_text_contents()
    for i, v in enumerate(views):
        v.send = lambda content, buffers, i=i: message(page, i, content, buffers)
        for *f, more in frames[8:]: v.append(*f, **more)
        v.flush(True)
        v.at = at
    agree(page, views)
    assert page.evaluate("models[0].get('at')") == at == frames[6][0] and page.locator(".read").all_text_contents() == before and text(page, ".where") == f"step {at} of 300"
    for i, v in enumerate(views): v.at = -1; receive(page, i, at=-1)
    agree(page, views)


def test_what_was_measured_arrives_and_survives_a_reload(linked, show):
    modules, frames = learning(layers=32, count=40)
    page, views = linked(modules, [])
    for i, v in enumerate(views):
        v.send = lambda content, buffers, i=i: message(page, i, content, buffers)
        for *f, more in frames: v.append(*f, **more)
        v.flush(True)
        v.metric = "sensitivity" if i == 0 else None
    receive(page, 0, metric="sensitivity")
    agree(page, views)
    seen = page.locator(".card").all_text_contents()
    again = show(*views, width=380, columns=3)
    assert again.locator(".card").all_text_contents() == seen


def test_alarms_are_drawn_and_said(linked):
    modules, frames = learning()
    frames = [(t, s*([4, *[0.6]*15] if t > 150 else 1), b, more) for t, s, b, more in frames]
    page, views = linked(modules, frames, selected="layers.2.up_proj")
    agree(page, views)
    assert "jumped" in text(page, ".course .read.alarm") and text(page, ".course text.alarm") == "spike"
    bad = frames + [(310, np.full((28, 16), np.nan), None, {})]
    page, views = linked(modules, bad)
    agree(page, views)
    assert "since step 310" in text(page, ".course .read") and text(page,
        ".course text.alarm") == "not a number" and "diverged" in text(page, ".spectrum .read")
    still = [(t, s, b, dict(drift=np.full(28, 0.001))) for t, s, b, _ in frames]
    page, views = linked(modules, still)
    agree(page, views)
    assert "A is still at its start" in text(page, ".course .read")


def test_what_is_contested_is_a_key_away(linked):
    modules, frames = learning()
    page, views = linked(modules, frames)
    heights = lambda: page.evaluate("[...document.querySelectorAll('.card')].map(e => e.offsetHeight)")
    before = heights()
    for v, why in zip(views, page.locator(".why").all()):
        why.locator("summary").press("Enter")
        assert why.locator("p").is_visible() and why.locator("p").text_content() == v.doubt and heights() == before
        page.keyboard.press("Escape")
        assert not why.locator("p").is_visible()


@pytest.mark.parametrize("width", [282, 380, 600])
def test_nothing_jumps_while_sliders_move(linked, width):
    modules, frames = learning()
    page, _ = linked(modules, frames, width=width)
    heights = lambda: page.evaluate("[...document.querySelectorAll('.card')].map(e => e.offsetHeight)")
    before = heights()
    for label, keys in (("Step shown", ["Home", *["ArrowRight"]*8]), ("Cut to rank k", ["Home", *["ArrowRight"]*15])):
        for key in keys:
            page.get_by_label(label).press(key)
            page.wait_for_timeout(25)
            assert heights() == before, (label, key)


def test_small_modules_and_one_direction(linked):
    modules = [dict(name="a", layer=None, kind=None, m=4, n=4, r=1, scaling=1.0),
        dict(name="b", layer=None, kind=None, m=4, n=4, r=2, scaling=1.0)]
    page, views = linked(modules, [(1, [[1, 0], [2, 1]], None, {}), (30, [[1, 0], [0, 0]], None, {})], selected="a")
    agree(page, views)
    assert page.get_by_label("Cut to rank k").is_disabled() and text(page, ".cutrow b") == "Cut to k = 1 of 1"
    receive(page, 1, selected="b"), receive(page, 2, selected="b")
    for v in views[1:]: v.selected = "b"
    agree(page, views)
    assert text(page, ".cutrow b") == "Nothing to cut yet" and "B is still zero after 30 steps" in text(page,
        ".course .read")


def test_directions_follow(show):
    modules, frames = learning()
    views = [fed(v, modules, frames, selected="layers.2.up_proj") for v in (LayerMap, Directions)]
    page = show(*views, width=380, columns=2)
    page.evaluate(LINK, ["selected", "at"])
    agree(page, views)
    page.locator("[role=gridcell][aria-label^='layers.0.k_proj']").click()
    views[1].selected = views[0].selected = "layers.0.k_proj"
    agree(page, views)
    sigma, effect = views[1]._matched()
    dots = np.array([[float(c.get_attribute(k)) for k in ("cx", "cy")]
        for c in page.locator(".directions svg circle.stem").all()])
    still = pictures.directions_svg(modules, sigma, effect, 1,
        width=page.evaluate("document.querySelector('.directions svg').viewBox.baseVal.width"))
    assert np.abs(dots - np.array(re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', still),
        float)).max() <= 0.11 and page.locator(".directions .others").get_attribute("d").count("M") == 28*16
    page.locator(".directions .chart").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".directions .unseen").text_content() == f"σ1 = {texts.number_text(float(sigma[1, 0]))}, effect {texts.number_text(float(effect[1, 0]))}"
    for i, v in enumerate(views): v.at = 20; receive(page, i, at=20)
    agree(page, views)
    assert "not measured yet" in text(page, ".directions svg")


def test_a_cut_is_chosen_by_slider_and_keys(show):
    k = np.arange(1, 17)
    curves = {n: [*zip(k*8000, a*0.78**k*(k < 16))] for n, a in (("uniform", 1.1), ("energy", 0.8), ("fisher", 0.5))}
    curves["energy"] = curves["energy"][::2]
    advisor = TrimAdvisor(curves, measured=[["fisher", 8000*i, 0.08*0.7**i] for i in (2, 4, 8, 12)])
    page = show(advisor, width=380)
    agree(page, [advisor])
    slider = page.get_by_label("Size of the cut")
    for key, point in (("Home", 0), ("ArrowRight", 1), ("End", 15), ("ArrowLeft", 14)):
        slider.press(key)
        advisor.point = point
        agree(page, [advisor])
        assert text(page, ".trim pre") == advisor.line() and page.evaluate("models[0].get('point')") == point
    ring = page.locator(".trim .ring").bounding_box()
    page.get_by_label("Rule for what to keep").select_option("energy")
    page.wait_for_timeout(60)
    advisor.rule, advisor.point = "energy", 7
    agree(page, [advisor])
    assert page.evaluate("models[0].get('point')") == 7 and 'rule="energy"' in text(page,
        ".trim pre") and page.locator(".trim .ring").bounding_box() != ring
    drag(page, slider, 0)
    advisor.point = 0
    agree(page, [advisor])


@pytest.mark.slow
def test_links_in_a_notebook(notebook):
    "The real thing: ipywidgets' own links, with the kernel busy"
    code = """import numpy as np, time
from ipywidgets import HBox
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum, link_views
modules = [dict(name=f"layers.{l}.{k}_proj", layer=l, kind=f"{k}_proj", m=64, n=64, r=4, scaling=1.0) for l in range(3) for k in "qkvo"]
views = LayerMap(modules), Spectrum(modules), Course(modules)
for t in range(10, 110, 10):
    for v in views: v.append(t, np.outer(np.arange(1, 13)*t, [1, .5, .2, .1]))
for v in views: v.flush(True)
links = link_views(*views)
HBox(views)"""
    nb = notebook([code, "try: time.sleep(600)\nexcept KeyboardInterrupt: pass",
        "print(views[1].selected, views[2].at, views[0].at, views[1].k)"])
    nb.run(0)
    nb.page.locator(".lrb.course .stem").first.wait_for(timeout=60_000)
    nb.wait_idle()
    nb.run(1)
    nb.page.locator("[role=gridcell][aria-label^='layers.2.o_proj']").click()
    nb.page.get_by_label("Step shown").press("Home")
    slider = nb.page.get_by_label("Cut to rank k")
    slider.press("Home")
    nb.page.wait_for_function("[...document.querySelectorAll('h3 .when')].every(e => e.textContent === 'step 10') && "
        "document.querySelector('.cutrow b').textContent === 'Cut to k = 1 of 4'")
    assert nb.page.locator(".lrb.spectrum .mono").text_content() == "layers.2.o_proj" and nb.waiting(), "the kernel was to be busy"
    nb.interrupt()
    nb.wait_idle()
    # what the page held back while the kernel was busy is sent when it is idle, perhaps after a cell that was run at once
    for _ in range(50):
        nb.run(2)
        nb.page.wait_for_timeout(200)
        nb.wait_idle()
        if "10 10 1" in nb.output(2): break
    nb.wait_output(2, "layers.2.o_proj 10 10 1")
