"""The live panels in Chromium, fed as a kernel would feed them: geometry, sentences, buttons, keys, memory of what was sent"""
import re

import numpy as np
import pytest
from loranb.core import texts
from loranb.runs import report
from loranb.spectra import pictures
from loranb.widgets.watch.monitor import Monitor
from loranb.widgets.watch.now import Now
from loranb.widgets.keep.samples import Samples
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum
from page import message, panel_page, plain, receive, state

KINDS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
VIEWS = LayerMap, Spectrum, Course


def learning(layers=4, r=16, frames=12, seed=0):
    "Modules and frames of pretended learning: signal that levels off over noise that grows"
    rng = np.random.default_rng(seed)
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=192, n=192, r=r, scaling=2.0) for l in range(layers)
        for k in KINDS]
    final = np.outer([0.1 + 0.3*m["layer"]/layers + 0.7*(m["kind"] in KINDS[4:]) for m in modules],
        0.78**(np.arange(r)*16/r))*rng.uniform(0.7, 1.3, (len(modules), r))
    make = lambda t: np.sort(np.tanh(t/100)*final + 0.05*np.sqrt(t/300), 1)[:, ::-1]
    return modules, [(int(t), make(t), np.full((len(modules), 2), (0.055, 0.085))*np.sqrt(t/300))
        for t in np.linspace(300/frames, 300, frames)]


def monitor(n=120, **kw):
    rng, m = np.random.default_rng(0), Monitor(max_steps=200, **kw)
    for i in range(1, n+1):
        m.append(i, (0.2 + 2*np.exp(-i/30))*np.exp(rng.normal(0, 0.1)))
        if i % 30 == 0: m.append_eval(i, 0.22 + 2*np.exp(-i/28))
    m.flush(True)
    return m


def points(d): return np.array(re.findall(r"-?\d+(?:\.\d+)?", d), float).reshape(-1, 2)
def words(page, selector): return page.text_content(selector).replace("\xa0", " ")
def fed(view, modules, frames, **kw):
    v = view(modules, **kw)
    for f in frames: v.append(*f)
    v.flush(True)
    return v


def test_loss_has_the_geometry_of_the_still(show):
    m = monitor()
    page = show(m, width=666)
    box = page.evaluate("document.querySelector('svg').viewBox.baseVal.width")
    still = report.loss_svg(np.frombuffer(m.steps, np.float32), np.frombuffer(m.loss, np.float32), *zip(*m.evals),
        max_steps=200, width=box)
    for line, at in (("raw", 0), ("mean", 1), ("held", 2)):
        drawn = points(page.get_attribute(f"[data-line={line}]", "d"))
        assert np.abs(drawn - points(re.findall(r' d="([^"]+)"', still)[at])).max() <= 0.11
    assert page.get_attribute("svg", "aria-label") == re.search('aria-label="([^"]+)"', still)[1]


@pytest.mark.parametrize("band", [True, False])
def test_spectrum_and_course_have_the_geometry_of_the_stills(show, band):
    modules, frames = learning()
    frames = frames if band else [f[:2] for f in frames]
    views = [fed(v, modules, frames, selected="layers.2.up_proj") for v in (Spectrum, Course)]
    page = show(*views, width=400)
    for i, v in enumerate(views):
        width = page.evaluate(f"document.querySelectorAll('svg')[{i}].viewBox.baseVal.width")
        t, s, b = v._course()
        still = pictures.spectrum_svg(s[-1], b[-1], title=v.selected,
            width=width) if i == 0 else pictures.course_svg(t, s, b, title=v.selected, shape=(192, 192), width=width)
        page_svg = page.locator("svg").nth(i)
        assert page_svg.get_attribute("aria-label") == re.search('aria-label="([^"]+)"', still)[1]
        if i == 0:
            dots = np.array([[float(c.get_attribute(k)) for k in ("cx", "cy")]
                for c in page_svg.locator("circle").all()])
            assert np.abs(dots - np.array(re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', still), float)).max() <= 0.11
        else:
            lines = [points(p.get_attribute("d"))
                for p in page_svg.locator("path[data-i], path.dashed, path.stem:not([data-i])").all()]
            there = [points(d) for d in re.findall(r' d="(M[^"Z]+)"', still)]
            assert len(lines) == len(there) == 16 + 4 - (not band) and max(np.abs(a - b).max() for a,
                b in zip(lines, there)) <= 0.11


@pytest.mark.parametrize("layers,r", [(4, 16), (2, 1), (3, 64)])
@pytest.mark.parametrize("metric", ["norm", "entropy_rank", "top_share"])
def test_sentences_are_those_of_python(show, layers, r, metric):
    modules, frames = learning(layers, r)
    views = [fed(LayerMap, modules, frames, metric=metric), *(fed(v, modules, frames) for v in VIEWS[1:])]
    page = show(*views, width=380, columns=3)
    for view, text in zip(views, page.locator(".read").all_text_contents()):
        assert view.text().endswith(text.replace("\xa0", " "))


def test_empty_panels_say_so(show):
    page = show(Monitor(), Now(), Samples(), *(v() for v in VIEWS), width=300, columns=3)
    assert "no step yet" in words(page, ".monitor svg") and words(page,
        ".layermap .read") == "No modules yet." and "No samples yet" in words(page, ".samples table")


def test_frames_arrive_as_messages_and_stay_after_a_reload(show):
    modules, frames = learning(layers=32, frames=60)
    views = [v(modules, selected="layers.20.up_proj") for v in VIEWS]
    page, sent = show(*views, width=370, columns=3), []
    for i, v in enumerate(views):
        v.send = lambda content, buffers, i=i: sent.append((i, content, buffers))
        for f in frames: v.append(*f)
        v.flush(True)
    for i, content, buffers in sent: message(page, i, content, buffers)
    page.wait_for_timeout(60)
    seen = page.locator(".read").all_text_contents()
    assert all(v.text().endswith(t.replace("\xa0", " ")) for v, t in zip(views, seen))
    assert len(points(page.get_attribute(".course path[data-i='1']", "d"))) == 60
    for i, v in enumerate(views): receive(page, i, **{k: getattr(v, k) for k in ("steps", "frames", "bands")})
    page.wait_for_timeout(60)
    assert page.locator(".read").all_text_contents() == seen
    again = show(*views, width=370, columns=3)
    assert again.locator(".read").all_text_contents() == seen


def test_a_new_run_empties_the_page(show):
    modules, frames = learning(frames=3)
    m, v = monitor(20), fed(Spectrum, modules, frames)
    page = show(m, v, width=400)
    for i in (0, 1): message(page, i, dict(kind="clear"))
    receive(page, 0, evals=[])
    page.wait_for_timeout(60)
    assert "no step yet" in words(page, ".monitor svg") and words(page, ".spectrum .read") == "No singular values yet."
    message(page, 0, dict(kind="points"), [np.float32([1]).tobytes(), np.float32([3]).tobytes()])
    page.wait_for_timeout(60)
    assert "train 3" in words(page, ".monitor svg")


def buttons(page): return page.locator(".monitor .buttons button").all_text_contents()


def test_a_click_shows_at_once_and_python_has_the_last_word(show):
    page = show(Monitor(), width=500)
    button = page.locator(".monitor .buttons button").first
    assert buttons(page) == ["Train"]
    button.click()
    page.wait_for_timeout(40)
    assert buttons(page) == ["Starting…"] and page.evaluate("models[0].sent") == [dict(kind="train")]
    button.click(force=True)
    assert len(page.evaluate("models[0].sent")) == 1
    receive(page, 0, run_id="r7", state="training")
    page.wait_for_timeout(40)
    assert buttons(page) == ["Pause", "Stop"] and page.evaluate("document.activeElement.textContent") == "Pause"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_timeout(40)
    assert page.evaluate("models[0].sent")[-1] == dict(kind="stop",
        run="r7") and button.get_attribute("aria-disabled") == "true" and "stopping after this step" in words(page,
        "[role=status]")
    receive(page, 0, state="stopped")
    page.wait_for_timeout(40)
    assert buttons(page) == ["Resume", "Train anew"]
    button.click()
    assert page.evaluate("models[0].sent")[-1] == dict(kind="resume")
    receive(page, 0, message="There is no room on the disk.", state="failed")
    page.wait_for_timeout(40)
    assert buttons(page) == ["Train"] and "no room" in words(page, ".error")


def test_pause_by_keyboard_and_what_is_waited_for(show):
    page = show(Monitor(state="training", run_id="r7", step=4, max_steps=9), width=500)
    now = lambda: (page.wait_for_timeout(40), words(page, ".monitor .under"))[1]
    receive(page, 0, doing="evaluating 64 rows held out")
    assert "training: evaluating 64 rows held out · step 4 of 9" in now()
    page.locator(".monitor .buttons button").first.focus()
    page.keyboard.press("Enter")
    assert "pausing, waits for: evaluating 64 rows held out" in now() and buttons(page) == ["Pause", "Stop"]
    assert page.evaluate("models[0].sent")[-1] == dict(kind="pause",
        run="r7") and page.evaluate("document.activeElement.textContent") == "Pause"
    receive(page, 0, doing="", state="pausing")
    assert "pausing after this step" in now()
    receive(page, 0, state="paused")
    assert "paused · step 4 of 9" in now() and buttons(page) == ["Resume", "Train anew"]
    receive(page, 0, state="finishing", doing="checking the saved adapter")
    assert "finishing: checking the saved adapter" in now() and buttons(page) == ["Skip"]
    page.locator(".monitor .buttons button").click()
    assert now() and page.locator(".monitor .buttons button").get_attribute("aria-disabled") == "true" and page.evaluate("models[0].sent")[-1]["kind"] == "stop"


def test_a_refused_start_gives_the_button_back(show):
    page = show(Monitor(), width=500)
    page.locator(".monitor .buttons button").click()
    receive(page, 0, message="r must be a whole number of at least 1, but it is 0.")
    page.wait_for_timeout(40)
    assert buttons(page) == ["Train"] and "whole number" in words(page, ".error")


def test_nothing_jumps_while_numbers_change(show):
    modules, frames = learning()
    views = [fed(v, modules, frames[:1], selected="layers.2.up_proj") for v in VIEWS]
    page = show(Monitor(state="training", max_steps=200), Now(), *views, width=380)
    heights = lambda: page.evaluate("[...document.querySelectorAll('.lrb.card')].map(e => e.offsetHeight)")
    before = heights()
    for k in (40, 80, 120):
        receive(page, 0, **{n: v for n, v in monitor(k).get_state().items() if n in ("steps", "loss", "evals")})
        now = Now(eval_loss=1/k, tokens_per_second=12345.6*k, time_left=7265, memory=15e9, peak_memory=15.6e9,
            learning_rate=1e-4/k, exact_match=1.0)
        receive(page, 1, figures=now.figures)
    for i, v in enumerate(views, 2):
        for f in frames[1:]: v.append(*f)
        v.flush(True)
        receive(page, i, steps=v.steps, frames=v.frames, bands=v.bands)
    page.wait_for_timeout(60)
    assert heights() == before


def test_map_by_keyboard(show):
    modules, frames = learning()
    page = show(fed(LayerMap, modules, frames, selected="layers.2.up_proj"), width=380)
    chosen = lambda: page.evaluate("models[0].get('selected')")
    for _ in range(2): page.keyboard.press("Tab")
    for key, name in (("ArrowUp", "layers.3.up_proj"), ("ArrowUp", "layers.3.up_proj"),
            ("ArrowRight", "layers.3.down_proj"), ("ArrowRight", "layers.3.down_proj"), ("Home", "layers.3.q_proj"),
            ("ArrowDown", "layers.2.q_proj"), ("End", "layers.2.down_proj")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(name) and words(page,
            ".peek .mono") == name and chosen() == "layers.2.up_proj"
    page.keyboard.press("Enter")
    page.wait_for_timeout(30)
    assert chosen() == name and page.locator("[aria-selected]").get_attribute("aria-label").startswith(name)
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    page.locator("[role=gridcell][aria-label^='layers.0.k_proj']").click()
    assert chosen() == "layers.0.k_proj"
    page.get_by_label("Colour by").select_option("entropy_rank")
    page.wait_for_timeout(30)
    assert words(page, ".read").startswith("Most directions:") and page.evaluate("models[0].get('metric')") == "entropy_rank"


def test_names_that_fit_no_grid_make_a_list(show):
    modules = [dict(name=f"experts.{i}.up", layer=None, kind=None, m=8, n=8, r=2, scaling=1.0) for i in range(30)]
    page = show(fed(LayerMap, modules, [(1, np.outer(np.arange(1, 31), [1, 0.5]))]), width=300)
    assert page.locator("[role=gridcell]").count() == 30 and words(page,
        ".read") == "Most: experts.29.up (33.5), least: experts.0.up (1.12)."


def test_values_are_read_by_pointer_and_arrows(show):
    modules, frames = learning()
    m, spectrum, course = monitor(), fed(Spectrum, modules, frames), fed(Course, modules, frames)
    page = show(m, spectrum, course, width=500)
    tip = lambda i: page.locator("svg").nth(i).locator(".over text").text_content()
    page.locator("svg").nth(0).hover(position=dict(x=200, y=80))
    assert re.fullmatch(r"step \d+: train [\d.]+, held out [\d.]+( at \d+)?", tip(0))
    page.locator(".spectrum .chart").focus()
    page.keyboard.press("ArrowRight")
    s = spectrum._last()[0]
    assert tip(1) == f"σ1 = {texts.number_text(s[0])}, {texts.number_text(100*s[0]**2/np.sum(s.astype(float)**2))} % of the energy up to here"
    page.locator(".course .chart").focus()
    page.keyboard.press("ArrowDown")
    assert tip(2).startswith("σ1 = ") and tip(2).endswith("at step 300") and page.locator(".course .unseen").text_content() == tip(2)
    page.keyboard.press("Escape")
    assert page.locator(".course .over text").count() == 0


def test_the_table_has_the_values(show):
    page = show(monitor(), width=500)
    page.get_by_text("show table").click()
    page.wait_for_timeout(40)
    cells = page.locator(".monitor table td").all_text_contents()
    assert cells[0] == "30" and cells[2] == texts.number_text(0.22 + 2*np.exp(-30/28)) and len(cells) == 12


def test_text_from_data_stays_text(show):
    bad = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    modules = [dict(name=bad, layer=0, kind=bad, m=8, n=8, r=2, scaling=1.0)]
    views = [fed(v, modules, [(1, [[2, 1]])]) for v in VIEWS]
    page = show(Samples(rows=[dict(prompt=bad, target=bad, before=bad, after=bad, before_ok=False, after_ok=False)]*3,
        checks=[(True, bad)], path=bad), Monitor(message=bad), Now(bad), *views, width=400)
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None and page.locator("main img").count() == 0 and page.locator("main script").count() == 0


def test_samples_mark_right_and_wrong_in_words_too(show):
    rows = [dict(prompt="p", target="t", before="b", after="t", before_ok=False, after_ok=True),
        dict(prompt="q", target=None, before="b", after="c", before_ok=None, after_ok=None)]
    page = show(Samples(rows=rows, checks=[(True, "B is not zero"), (False, "reload equals")], path="runs/a/adapter"),
        width=600)
    assert page.get_by_role("img", name="wrong").count() == 1 and page.get_by_role("img",
        name="right").count() == 1 and page.get_by_role("img", name="does not hold").count() == 1
    page.get_by_role("button", name="copy").click()
    page.wait_for_timeout(60)
    assert page.get_by_role("status").text_content() == "Path copied"


def test_leaving_cleans_up_and_two_views_share_a_model(show):
    modules, frames = learning(frames=2)
    panels = [monitor(10), Now(), Samples(), *(fed(v, modules, frames) for v in VIEWS)]
    page = show(*panels, width=300, columns=3)
    page.evaluate("""async ([esm, i]) => { const el = document.createElement('div'); document.querySelector('main').append(el);
        stops.push((await import(URL.createObjectURL(new Blob([esm], {type: 'text/javascript'})))).default.render({ model: models[i], el })); }""", [panels[3]._esm, 3])
    page.locator(".layermap [role=gridcell]").first.click()
    page.wait_for_timeout(60)
    assert page.locator(".layermap [aria-selected=true]").count() == 2
    assert page.evaluate("stops.forEach(f => f()), models.map(m => Object.values(m.handlers).flat().length)") == [0]*6


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(show, theme):
    modules, frames = learning()
    page = show(monitor(), Now(eval_loss=1.0),
        Samples(rows=[dict(prompt="p", target="t", before="b", after="t", before_ok=False, after_ok=True)],
        checks=[(True, "ok")], path="x"), *(fed(v, modules, frames) for v in VIEWS), width=400, columns=3, theme=theme)
    low = page.evaluate("""() => { const rgb = c => { const x = document.createElement('canvas').getContext('2d'); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data].slice(0, 3); };
        const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const out = [];
        for (const e of document.querySelectorAll('main *')) {
          if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.closest('.unseen, style')) continue;
          let ground = e; while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
          const st = getComputedStyle(e), ink = lum(rgb(e.namespaceURI.endsWith('svg') ? st.fill : st.color)), bg = lum(rgb(getComputedStyle(ground).backgroundColor));
          const ratio = (Math.max(ink, bg) + 0.05) / (Math.min(ink, bg) + 0.05);
          if (ratio < 4.5) out.push([e.textContent, ratio]);
        } return out; }""")
    assert not low


def test_state_is_plain():
    assert set(state(Monitor())) >= {"state", "steps", "loss"} and plain(b"a") == {"$bytes": "YQ=="}
