"""Live panels without a browser: traits, messages, words, stills"""
import numpy as np
import pytest
from traitlets import TraitError

from loranb.widgets.watch.monitor import Monitor
from loranb.widgets.watch.now import Now
from loranb.widgets.keep.samples import Samples
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum, link_views
from loranb.widgets.see.trim_views import Directions, TrimAdvisor, trim_rows

MODULES = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=8, n=8, r=4, scaling=1.0) for l in range(2)
    for k in ("q_proj", "up_proj")]
VIEWS = LayerMap, Spectrum, Course


def frame(scale=1.0): return np.full((4, 4), scale)*[1, 0.5, 0.2, 0.1], np.full((4, 2), (0.1, 0.3))


def listen(panel):
    sent = []
    panel.send = lambda content, buffers=None: sent.append((content, buffers))
    return sent


@pytest.mark.parametrize("panel", [Monitor, Now, Samples, *VIEWS, Directions, TrimAdvisor])
def test_stands_alone(panel):
    p = panel()
    assert p.text() and p.still() == "" and "export default" in p._esm and ".lrb" in p._css
    bundle = p._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"] == p.text() and "text/html" not in data


def test_a_still_is_in_the_bundle():
    p = Monitor()
    p.append(1, 2.0)
    bundle = p._repr_mimebundle_()
    assert (bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"].startswith("<svg")


def test_points_are_gathered():
    m = Monitor()
    sent = listen(m)
    for i in range(500): m.append(i+1, 1/(i+1))
    m.flush(True)
    points = [np.frombuffer(b[1], np.float32) for c, b in sent if c["kind"] == "points"]
    assert len(sent) < 20 and np.allclose(np.concatenate(points), 1/np.arange(1, 501))
    assert np.allclose(np.frombuffer(m.loss, np.float32), 1/np.arange(1, 501)) and m.step == 500


def test_a_reload_finds_what_was_not_yet_sent():
    m = Monitor()
    m.append(1, 3.0)
    m.append(2, 2.0)
    assert len(m.steps) == 4 and np.frombuffer(m.get_state()["steps"], np.float32).tolist() == [1, 2]


def test_a_long_history_stays_bounded():
    m = Monitor()
    for i in range(10_000): m.append(i, 1.0)
    m.flush(True)
    steps = np.frombuffer(m.steps, np.float32)
    assert len(steps) <= 4096 and steps[0] == 0 and steps[-1] == 9999 and np.all(np.diff(steps) > 0)


def test_a_new_run_begins_empty():
    m = Monitor()
    m.append(1, 3.0); m.append_eval(1, 2.0)
    sent = listen(m)
    m.clear()
    assert m.loss == b"" and m.evals == [] and m.step == 0 and sent == [(dict(kind="clear"), None)] and m.still() == ""


def test_a_history_can_be_given():
    m = Monitor(steps=np.float32([1, 2]).tobytes(), loss=np.float32([3, 2]).tobytes(), evals=[[2, 1.9]])
    assert "loss 2, held-out loss 1.9 at step 2" in m.text()


def test_unknown_state():
    with pytest.raises(TraitError): Monitor(state="asleep")


def test_figures_of_now():
    n = Now(memory=800e6, peak_memory=1.2e9)
    assert dict(n.figures)["memory · peak"] == "800 MB · 1.2 GB"
    n.update(exact_match=0.625, time_left=3700)
    assert dict(n.figures)["exact match"] == "62 %" and dict(n.figures)["time left"] == "1 h 1 min" and dict(n.figures)["memory · peak"] == "800 MB · 1.2 GB"
    with pytest.raises(TypeError): n.update(exact_mach=1)
    n.update(exact_match=None)
    assert dict(n.figures)["exact match"] == "–"


@pytest.mark.parametrize("view", VIEWS)
def test_frames_and_bytes(view):
    v = view(MODULES)
    sent = listen(v)
    for t in range(1, 9): v.append(t*10, *frame(t/8))
    v.flush(True)
    assert v.steps == list(range(10, 90, 10))
    assert np.frombuffer(v.frames, np.float32).reshape(8, 4, 4)[-1,
        0].tolist() == np.float32([1, 0.5, 0.2, 0.1]).tolist()
    assert sum(len(c["steps"]) for c, _ in sent) == 8
    again = view(MODULES, steps=v.steps, frames=v.frames, bands=v.bands, selected=v.selected)
    assert again.text() == v.text() and again.still() == v.still() and again.still().startswith("<svg")


def test_frames_are_thinned_by_size():
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=8, n=8, r=64, scaling=1.0) for l in range(32)
        for k in "abcdefg"]
    v = Course(modules)
    listen(v)
    for t in range(300): v.append(t, np.zeros((224, 64)))
    v.sync()
    assert len(v.frames) <= 4_100_000 and v.steps[0] == 0 and v.steps[-1] == 299


def test_the_figures_are_those_of_the_chosen_module():
    v = Spectrum(MODULES, selected="layers.1.up_proj")
    sigma, band = frame()
    sigma[3] = [3, 0, 0, 0]
    v.append(1, sigma, band)
    assert v.text() == "Is my rank too high? layers.1.up_proj: 1 of 4 directions carries 90 % of the update, 1 carries 99 %. Trimmed to r = 1, it would stay the same. 3 lie within the noise."
    v.selected = "layers.0.q_proj"
    assert "layers.0.q_proj: 2 of 4 directions carry" in v.text()


def test_lower_ranks_are_padded():
    modules = [dict(m, r=r) for m, r in zip(MODULES, (4, 2, 4, 4))]
    v = Spectrum(modules, selected=modules[1]["name"])
    v.append(1, [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert "2 of 2 directions carry 90 %" in v.text()


def test_what_a_view_refuses():
    v = LayerMap(MODULES)
    with pytest.raises(ValueError, match="needs sigma"): v.append(1, np.zeros((3, 4)))
    with pytest.raises(TraitError, match="Did you mean"): v.selected = "layers.1.up_prj"
    with pytest.raises(TraitError): v.metric = "beauty"
    assert v.selected == "layers.1.q_proj"


def test_new_modules_forget_the_frames():
    v = LayerMap(MODULES)
    v.append(1, *frame())
    v.modules = MODULES[:2]
    assert v.steps == [] and v.selected == "layers.0.up_proj" and "zero everywhere" in v.text()


def test_views_are_linked_in_the_browser():
    a, b, c = (view(MODULES) for view in VIEWS)
    assert [(l.source, l.target) for l in link_views(a, b, c)] == [((a, n), (v, n)) for v in (b, c)
        for n in ("selected", "at")]


def test_samples_in_words():
    rows = [dict(prompt="p", target="t", before="b", after="a", before_ok=False, after_ok=True),
        dict(prompt="p", before="b", after="a", before_ok=None, after_ok=None)]
    s = Samples(rows=rows, checks=[(True, "B is not zero"), (False, "reload equals")], path="out")
    assert s.text() == "Keep: 0 of 1 samples right before, 1 after. Failed: reload equals. Adapter: out"
    assert "a ✓" in s.still()


def measured(scale=1.0): return dict(aware=np.full((4, 4), scale)*[2, 1, 0.1, 0], share=np.full(4, 0.1*scale))


@pytest.mark.parametrize("view", VIEWS)
def test_measured_columns_come_back_after_a_reload(view):
    v = view(MODULES)
    sent = listen(v)
    for t in range(1, 9): v.append(t*10, *frame(t/8), **(measured(t/8) if t % 3 == 0 else {}))
    v.flush(True)
    assert v.columns == dict(aware=[30, 60], share=[30, 60]) and [c["columns"].get("aware", []) for c,
        _ in sent if c["columns"]]
    assert sum(len(b) for c, bs in sent for b in bs) == 8*(64 + 32) + 2*(64 + 16)
    again = view(MODULES, **{k: getattr(v, k) for k in ("steps", "frames", "bands", "columns", "aware", "share",
        "selected")})
    assert again.text() == v.text() and again.still() == v.still()
    v.clear()
    assert v.columns == {} and v.aware == b"" and v.at == -1


def test_what_is_shown_was_known_at_that_step():
    v = LayerMap(MODULES)
    v.append(10, *frame(), share=[0.1, np.nan, np.nan, np.nan])
    v.append(20, *frame(), share=[0.2, 0.3, np.nan, np.nan])
    v.append(30, *frame(), share=[np.nan]*4)
    values, steps = v.measured("share")
    assert np.allclose(values[:2], [0.2, 0.3]) and np.isnan(values[2:]).all() and steps.tolist() == [20, 20, -1,
        -1] and "share" in v.columns
    v.at = 15
    assert v.measured("share")[1].tolist() == [10, -1, -1, -1] and v.measured("aware") == (None, None)
    v.at = 3
    assert v._shown() == 0


def test_a_measured_column_is_thinned_by_itself():
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=8, n=8, r=64, scaling=1.0) for l in range(32)
        for k in "abcdefg"]
    v = Spectrum(modules)
    listen(v)
    for t in range(300): v.append(t, np.ones((224, 64)), aware=np.ones((224, 64)) if t % 10 == 0 else None)
    v.sync()
    assert len(v.frames) <= 4_100_000 and len(v.aware) <= 2_100_000 and v.columns["aware"][0] == 0 and v.columns["aware"][-1] == 290


@pytest.mark.parametrize("columns,words", [(dict(shares=np.ones(4)), "Did you mean 'share'"),
    (dict(share=np.ones(3)), "needs \\(4,\\)"), (dict(aware=np.ones(4)), "needs \\(4, 4\\)")])
def test_a_column_that_does_not_fit_is_refused(columns, words):
    v = Course(MODULES)
    with pytest.raises(ValueError, match=words): v.append(1, *frame(), **columns)
    assert v._frames == []


def test_the_slider_asks_for_a_cut():
    v = Spectrum(MODULES, k=3, itemsize=2, errors={MODULES[2]["name"]: {"2": 0.1}}, selected=MODULES[2]["name"])
    v.append(1, *frame(), **measured())
    assert "Trimmed to r = 3, it would err by at most 0.1·‖x‖, on this data by 0 % of its output." in v.text()
    table = v.frame()
    assert table.k.tolist() == [1, 2, 3, 4] and table.bytes.tolist() == [32, 64, 96,
        128] and table.adapter_bytes.tolist() == [128, 256, 384, 512]
    assert table.measured[1] == 0.1 and np.isnan(table.measured[0]) and np.allclose(table.expected,
        [np.sqrt(1.01/5.01), np.sqrt(0.01/5.01), 0, 0]) and table.worst.tolist()[-1] == 0
    v.k = 9
    assert v.still() and "Trimmed" not in v.text()


def test_colour_falls_back_to_what_is_known():
    v = LayerMap(MODULES)
    v.append(1, *frame())
    assert "Most:" in v.text()
    v.append(2, *frame(), share=[0.1, 0.2, 0.3, 0.4])
    assert "Changes its output most: up of layer 1 (40 %), least: q of layer 0 (10 %)." in v.text() and "output share" in v.still()
    v.metric = "sensitivity"
    assert "Not measured yet" in v.text() and v.frame().sensitivity.isna().all() and v.frame().share.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_leaves_as_a_file(view, tmp_path):
    v = view(MODULES)
    with pytest.raises(ValueError, match="nothing to show"): v.save(tmp_path/"a.svg")
    v.append(1, *frame())
    assert v.save(tmp_path/"a.svg").read_text() == v.still()
    page = v.save(tmp_path/"a.html").read_text()
    assert v.question in page and v.still() in page and "<script" not in page and not [o for o in ("src=", "href=",
        "url(") if o in page]
    with pytest.raises(ValueError, match="must end in"): v.save(tmp_path/"a.png")


def test_alarms_come_first():
    v = Course(MODULES)
    for t in range(10, 100, 10): v.append(t, np.full((4, 4), t)*([1, 0.5, 0.2, 0.1] if t < 60 else [9, 0.5, 0.2, 0.1]))
    assert v.reading().startswith("At step 60 σ1/σ2 jumped from 2 to 18") and ">spike<" in v.still()
    v.at = 50
    assert "jumped" not in v.reading() and ">spike<" not in v.still()
    v.at = -1
    v.append(100, np.full((4, 4), np.nan))
    assert v.reading() == "Singular values are not numbers since step 100: the training diverged." and v.still()


def test_effects_stand_beside_the_values_of_their_step():
    v = Directions(MODULES, selected=MODULES[1]["name"])
    assert v.text() == "Which directions matter? Not measured yet: the effect of single directions on the loss." and v.still() == "" and len(v.frame()) == 0
    v.append(10, *frame(1), effect=np.array([[0.1, 0.1, 3, 0.1]]*4))
    v.append(20, *frame(2))
    table = v.frame()
    assert table.sigma.max() == 1 and len(table) == 16 and "In this module it is σ3 that it feels most." in v.reading() and v.still().startswith("<svg")


def test_a_curve_is_plain_data():
    import pandas as pd
    curve = pd.DataFrame(dict(parameters=[100, 50], expected_error=[0.0, 0.04], relative_frobenius=[0, 0.1]))
    assert trim_rows(curve) == [[50, 0.2], [100, 0.0]] and trim_rows(curve.drop(columns="expected_error")) == [[50,
        0.1], [100, 0.0]]
    a = TrimAdvisor({"fisher": curve, "uniform": [(50, 0.4)]}, total=200)
    assert (a.rule, a.point, a.total) == ("fisher", 1,
        200) and a.line().startswith("trim(adapter, parameters=100") and a.frame().share.tolist() == [0.25, 0.5, 0.25]
    assert a.frame().kl.isna().all() and a.save and "Not measured at this size." in a.text()
    assert TrimAdvisor().text() == "Can I shrink it? No cut has been computed yet." and TrimAdvisor().line() == "" and TrimAdvisor().still() == ""
    with pytest.raises(TraitError, match="has no curve"): a.rule = "energy"
