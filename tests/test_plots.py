"""Stills: whatever goes in, a well-formed picture comes out, and text stays text"""
import json, math, re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from loranb.runs import report
from loranb.core import texts
from loranb.runs import report
from loranb.spectra import readings
from loranb.core import html
from loranb.runs import report
from loranb.spectra import pictures

positive = st.floats(1e-12, 1e12)
odd = st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=32), st.just(0.0), st.floats(1e-3, 10))
quick = settings(max_examples=40, deadline=None)


def parse(svg):
    root = ET.fromstring(svg)
    bad = [(e.tag, k, v) for e in root.iter() for k, v in e.attrib.items() if k not in ("aria-label",)
        and re.search(r"\bnan\b|\binf\b", v)]
    assert not bad, bad[:3]
    return root


@given(positive, st.floats(1, 1e6))
def test_log_axis_holds_its_values(lo, ratio):
    a, b = html.log_range(lo, min(lo*ratio, 1e13))
    ticks = html.log_ticks(a, b)
    assert a <= lo*(1 + 1e-8) and b >= lo*ratio*(1 - 1e-8) if lo*ratio <= 1e13 else True
    assert 1 <= len(ticks) <= 6 and all(a <= t <= b for t in ticks)


@given(st.integers(1, 10**7), st.integers(2, 6))
def test_whole_ticks(last, n):
    t = html.lin_ticks(last, n)
    assert t[0] == 0 and t[-1] <= last and len(t) <= 2*n + 2 and all(isinstance(v, int) for v in t)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5))
def test_end_labels_keep_their_distance(ys):
    out = np.sort(report._spread(ys, 14, 100))
    assert np.all(np.diff(out) >= 14 - 1e-9) and out[-1] <= 100 + 1e-9


@quick
@given(st.lists(odd, max_size=30), st.lists(odd, max_size=5))
def test_any_loss_gives_a_picture(loss, evals):
    parse(report.loss_svg(range(1, len(loss)+1), loss, range(len(evals)), evals))


@quick
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=70),
    st.sampled_from([None, (np.nan, np.nan), (0.1, 0.2), (0.0, 0.0)]))
def test_any_spectrum_gives_a_picture(sigma, band):
    sigma = sorted(sigma, reverse=True)
    parse(pictures.spectrum_svg(sigma, band))
    parse(pictures.course_svg([1, 2, 3], [sigma]*3, None if band is None else [band]*3))


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=64))
def test_figures_of_a_spectrum(sigma):
    s = np.sort(sigma)[::-1]
    f, energy = readings.spectrum_figures(s), s**2
    total = np.cumsum(energy)[-1]
    if not total: return
    for share, k in ((0.9, f["k90"]), (0.99, f["k99"])):
        assert np.cumsum(energy)[k-1] >= share*total and (k == 1 or np.cumsum(energy)[k-2] < share*total)
    assert 1 - 1e-9 <= f["entropy_rank"] <= len(s) + 1e-9 and 0 < f["top_share"] <= 1


@given(st.text(max_size=40))
def test_text_stays_text(text):
    root = parse(html.svg(10, 10, html.tag("text", text), label=text))
    seen = re.sub("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "", text)
    assert (root[-1].text or "") == seen.replace("\r\n", "\n").replace("\r", "\n") and len(root) == 2


@pytest.mark.parametrize("smooth_n", [1, 2, 7, 100, 1000])
def test_smoothing_keeps_a_constant_and_its_length(smooth_n):
    assert np.allclose(report.smooth(np.full(smooth_n, 2.5)),
        2.5) and len(report.smooth(np.zeros(smooth_n))) == smooth_n


def test_numbers_as_the_browser_writes_them():
    assert [texts.number_text(v) for v in (0.1, 0.00002, 1234.5, 999.96, 1e-9, -3.14159, 0.5625, -0.5625, math.nan,
        None)] == ["0.1", "0.00002", "1,235", "1000", "1e-9", "-3.14", "0.563", "-0.563", "–", "–"]


def big(layers=80, r=64):
    kinds = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, r=r) for l in range(layers) for k in kinds]
    rng = np.random.default_rng(0)
    return modules, np.sort(rng.random((len(modules), r)), 1)[:, ::-1], np.full((len(modules), 2), (0.05, 0.1))


def test_report_of_a_large_model_stays_small_and_self_contained():
    modules, sigmas, bands = big()
    steps = np.arange(1, 5001)
    samples = [dict(prompt="p"*5000, target=None, before="</td><script>", after="a", before_ok=None, after_ok=True)]*200
    page = report.report_html("<title>", [("model", "a & b")], [("x", None)], steps, 1/steps, [(0, 3.0), (5000, 0.1)],
        5000, modules, sigmas, bands, samples, [(False, "it failed")], "print('<')")
    assert len(page.encode()) < 3e6 and "256 of 560" in page
    assert "<script" not in page and not re.search(r'(?:src|href)=|url\(|@import', page)
    assert "✗ it failed" in page and "&lt;title&gt;" in page


def test_report_leaves_out_what_is_not_known():
    page = report.report_html("t")
    assert "<section" not in page and page.startswith("<!doctype html>")


def test_card_of_a_run_that_never_began():
    card = report.card_html("nothing yet")
    assert "no step yet" in card and "Too early to say" in card and parse(card) is not None


def test_map_of_names_that_do_not_fit():
    modules = [dict(name=f"experts.{i}", layer=None, kind=None) for i in range(3)]
    rows, columns, place = readings.module_grid(modules)
    assert rows == ["experts.0", "experts.1", "experts.2"] and columns == [""] and place.shape == (3, 1)
    parse(pictures.model_map(modules, np.ones((3, 2)), "experts.1"))
    parse(pictures.multiples_svg(modules, np.ones((3, 2))))


@pytest.mark.parametrize("losses,evals,words", [([2, 1], [], "not yet"), ([2, 1], [(1, 2)], "once"),
    (np.linspace(2, 1, 100), [(25, 1.8), (50, 1.6), (100, 1.2)], "Still falling"),
    (np.linspace(2, 1, 100), [(25, 1.8), (50, 1.2), (100, 1.6)], "memorizing"),
    (np.full(100, 2.0), [(25, 1.8), (50, 1.2), (100, 1.6)], "did not fall"),
    (np.linspace(2, 1, 100), [(25, 1.2), (50, 1.2), (75, 1.2), (100, 1.199)], "is level"),
    ([1, math.nan], [(1, 1), (2, 1)], "not a number since step 2"),
    ([1, 1], [(1, 1), (2, math.inf)], "not a number at step 2")])
def test_what_two_losses_say(losses, evals, words):
    assert words in report.loss_reading(np.arange(1, len(losses)+1), losses, evals)


def test_html_strings_are_json(): assert json.loads(json.dumps(html.tag("b", "x"))) == "<b>x</b>"


def rows(draw, n, r):
    return np.sort(np.array(draw(st.lists(st.lists(st.floats(0, 1e4, width=32), min_size=r, max_size=r), min_size=n,
        max_size=n)), float).reshape(n, r), 1)[:, ::-1]


@quick
@given(st.data())
def test_any_update_gives_its_pictures_and_sentences(data):
    n, r = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    s, more = rows(data.draw, n, r), rows(data.draw, n, r)
    modules = [dict(name=f"layers.{i}.q_proj", layer=i, kind="q_proj", m=r + 3, n=r + 4, r=r) for i in range(n)]
    bands = data.draw(st.sampled_from([None, np.full((n, 2), (0.1, 0.2))]))
    effect = np.where(more > 50, np.nan, more)
    for metric in readings.METRICS:
        column = effect if metric == "sensitivity" else more[:, 0]
        parse(pictures.model_map(modules, s, modules[-1]["name"], metric, column, bands, more[:, -1]))
        lo, hi, mark = readings.map_scale(modules, readings.map_values(s, metric, column), metric, bands)
        assert lo <= hi and (math.isnan(mark) or lo - 1e-9 <= mark <= hi)
    parse(pictures.directions_svg(modules, s, effect, n - 1))
    for k in range(1, r + 1):
        cut = readings.trim_figures(s[0], k, more[0])
        assert 0 <= cut["share"] <= 1 and cut["worst"] <= s[0, 0] and (cut["expected"] is None or 0 <= cut["expected"]
            <= 1)
        parse(pictures.spectrum_svg(s[0], None, k, aware=more[0]))
        if s[0].any(): assert readings.equal_ranks(s, cut["share"])[0] <= k
    steps = range(10, 10*(n + 1), 10)
    parse(pictures.course_svg(steps, s, bands, shape=(8, 9), at=data.draw(st.integers(-1, n - 1))))
    assert readings.course_reading(steps, s, bands)


@pytest.mark.parametrize("m,n,r", [(192, 192, 16), (64, 512, 8), (4096, 256, 32)])
def test_the_entropy_rank_of_noise(m, n, r):
    rng = np.random.default_rng(0)
    drawn = [readings.spectrum_figures(np.linalg.svd(np.linalg.qr(rng.normal(size=(m,
        r)))[1] @ np.linalg.qr(rng.normal(size=(n, r)))[1].T, compute_uv=False))["entropy_rank"] for _ in range(40)]
    assert abs(np.mean(drawn)/readings.noise_rank(m, n, r) - 1) < 0.005


@quick
@given(st.dictionaries(st.sampled_from(["uniform", "energy", "a"]),
    st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), min_size=1, max_size=6), max_size=3))
def test_any_curves_give_a_picture(curves):
    rule = next(iter(curves), "")
    parse(pictures.trim_svg(curves, rule, 0, 100, measured=[(rule, 5, 0.1)] if curves else []))
    assert readings.trim_reading(curves, rule, 0, 100)


def test_a_still_that_is_not_there_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="nothing to show"): html.save_still(tmp_path/"a.svg", "", "t")
    with pytest.raises(ValueError, match="must end in"): html.save_still(tmp_path/"a.pdf", "<svg/>", "t")
    page = html.save_still(tmp_path/"a.html", html.svg(1, 1), "<b>", "<script>").read_text()
    assert "<script>" not in page and "&lt;b&gt;" in page and not re.search(r'(?:src|href)=|url\(|@import', page)
