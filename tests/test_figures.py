"Figures: their numbers are those of compare and functional, chance is in the picture, the sentence says the same, and nothing degenerate breaks them"
import json, re, subprocess, sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from loranb.evaluate import comparing as compare
from loranb.adapters import trimming as trim
from loranb.models.loading import load_base
from loranb.models.lora import attach
from loranb.core.charts import Figure, Plot, band, cells, null_line, dots, line, labels
from loranb.spectra.layouts import AdapterError, Factors
from loranb.spectra.factors import read_factors
from loranb.evaluate.questions import draw_alignment, draw_amplification, draw_direction_tokens, draw_forgetting, draw_overlap
from loranb.adapters.budget import draw_rank_budget, rank_budget
from loranb.evaluate.watch import measure_directions
from loranb.core.html import GREY
from loranb.core.texts import number_text, percent_text
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.spectra.spectra import Spectra
from loranb.evaluate.base_weights import base_weight

DOWN, Q = "model.layers.1.mlp.down_proj", "model.layers.2.self_attn.q_proj"


def planted(quant="nf4", r=4, seed=0, zero=False, targets="all-linear"):
    "petit with an adapter whose B is small and random, or zero"
    recipe = Recipe(model="petit", quant=quant, r=r, lora_alpha=2*r, seed=seed, target_modules=targets)
    base, tok = load_base(recipe)
    model = attach(base, recipe).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name and not zero: p.copy_(torch.randn(p.shape, generator=g)*0.02)
    return model, tok


def text(tok, n=4):
    rows = [tok(f"The cat number {i} sees a dog.")["input_ids"][:8] for i in range(n)]
    ids = torch.tensor([o[:min(map(len, rows))] for o in rows])
    return [dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)]


@pytest.fixture(scope="module")
def one(): return planted(seed=0)


@pytest.fixture(scope="module")
def two(): return planted(seed=1)


def nulls(figure):
    return [t for t in figure.figure.data if t.type == "scatter" and t.line.dash == "dash" and t.line.color == GREY]


def looks_right(figure):
    "What holds for every figure"
    drawn = figure.figure
    assert drawn.layout.title.text == figure.question and figure.question.endswith("?")
    said = drawn.layout.annotations[0].text.replace("<br>", " ").replace("&#x27;", "'").replace("&amp;",
        "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    assert said == " ".join(figure.reading.split()) and len(figure.reading) > 20
    assert type(drawn).__name__ == "Figure" and drawn.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert isinstance(figure.data, pd.DataFrame) and len(drawn.to_json()) < 400_000
    root = ET.fromstring(figure.still)
    bad = [(e.tag, k, v) for e in root.iter() for k, v in e.attrib.items() if k != "aria-label"
        and re.search(r"\bnan\b|\binf\b", v)]
    shown = "".join(root.itertext())
    assert not bad and figure.question in shown and all(o in shown for o in figure._said), bad[:3]
    json.dumps(figure._repr_mimebundle_()["application/vnd.plotly.v1+json"], allow_nan=False)
    names = {o["name"] for p in figure.panels for o in p.marks if o["name"] and o["kind"] != "cells"}
    assert sum(40 + 6.2*len(o) for o in names) <= figure.width - 8, "the legend is wider than the figure"
    return figure


def test_overlap_of_a_module(one, two):
    x, y = (Spectra.of(o[0]) for o in (one, two))
    f = looks_right(draw_overlap(x, y, DOWN))
    for side, k in ("right", "inputs"), ("left", "outputs"):
        o, t = compare.overlap(x, y, side)[DOWN], f.data[f.data.side == k]
        for key in "phi", "null", "sd": np.testing.assert_array_equal(t[key].to_numpy().reshape(4, 4), o[key])
        assert f"{number_text(o['phi'][-1, -1])} (by chance {number_text(o['null'][-1, -1])}" in f.reading
        line_ = next(t for t in nulls(f) if np.allclose(np.array(t.y, float), np.diag(o["null"])))
        assert len(line_.x) == 4
    heat = [t for t in f.figure.data if t.type == "heatmap"]
    assert len(heat) == 2 and all(t.zmin == 0 and t.zmax == max(0.01, *(np.max(o.z) for o in heat)) for t in heat)
    a, b = (next(o for o in s.parts if o.name == DOWN) for s in (x, y))
    left = compare.cancellation([a, b])
    assert f"Added together {number_text(left['ratio'])}" in f.reading and f.data.ratio.iloc[0] == left["ratio"]


def test_colours_begin_at_chance():
    g = torch.Generator().manual_seed(0)
    same = Factors("l", torch.randn(3, 40, generator=g), torch.randn(30, 3, generator=g), 1.)
    apart = Factors("l", torch.randn(3, 40, generator=g), torch.randn(30, 3, generator=g), 1.)
    z = np.array(next(t for t in draw_overlap([same], [same]).figure.data if t.type == "heatmap").z, float)
    np.testing.assert_allclose(np.diag(z), 1, atol=1e-9)
    f = draw_overlap([same], [apart])
    z = np.array(next(t for t in f.figure.data if t.type == "heatmap").z, float)
    o = compare.overlap(same, apart)
    beyond = o["phi"] > o["null"] + 2*o["sd"]
    np.testing.assert_allclose(z, np.where(beyond, (o["phi"] - o["null"])/(1 - o["null"]), 0))


def test_overlap_of_all_modules(one, two):
    x, y = (Spectra.of(o[0]) for o in (one, two))
    f = looks_right(draw_overlap(x, y))
    o = compare.overlap(x, y, "left")
    np.testing.assert_allclose(f.data.outputs, [v["phi"][-1, -1] for v in o.values()], rtol=1e-9)
    pairs = list(zip(x.parts, y.parts))
    np.testing.assert_allclose(f.data.ratio, [compare.cancellation(list(p))["ratio"] for p in pairs], rtol=1e-9)
    np.testing.assert_allclose(f.data.cosine, [compare.cosine(*p)["cosine"] for p in pairs], rtol=1e-9)
    np.testing.assert_array_equal(f.data.module, list(o))
    assert f"overlap by {number_text(np.median(f.data.outputs))} in the median of 28 modules (by chance {number_text(np.median(f.data.outputs_null))})" in f.reading
    assert all(t.zmin == 0 and list(t.colorbar.ticktext)[0] == "chance" for t in f.figure.data)


def test_amplification_is_compares_table(one):
    spectra = Spectra.of(one[0])
    f, t = looks_right(draw_amplification(spectra, one[0])), compare.amplification(spectra, one[0])
    pd.testing.assert_frame_equal(f.data, t)
    np.testing.assert_allclose(np.array(nulls(f)[0].y, float), t.random)
    assert f"{number_text(t.amplification.median())} times what W does in the same directions" in f.reading and f"{number_text(t.excess.median())} times what it does in random" in f.reading


def test_forgetting(one):
    model, tok = one
    spectra = Spectra.of(model)
    f = looks_right(draw_forgetting(spectra, model, text(tok), say=pytest.fail))
    size, turn, kl = compare.relative_size(spectra, model), compare.magnitude_direction(spectra,
        model), compare.forgetting(model, text(tok))
    np.testing.assert_array_equal(f.data.relative_spectral, size.relative_spectral)
    np.testing.assert_array_equal(f.data[["dM", "dD"]], turn[["dM", "dD"]])
    np.testing.assert_allclose(np.array(nulls(f)[0].y, float),
        [(m*n)**.25/(m**.5 + n**.5) for m, n in ((o["m"], o["n"]) for o in spectra.modules)])
    assert f.kl == kl and f"moved by {number_text(kl['kl'])} ± {number_text(kl['sd'], 2)} nats a token" in f.reading
    assert f"correlate by {number_text(np.corrcoef(turn.dM, turn.dD)[0, 1], 2)}" in f.reading
    assert "Contested" in f.caveat and all(o in f.caveat for o in ("-0.62", "-0.31", "+0.83"))
    without = draw_forgetting(spectra, model)
    assert without.kl is None and "Not measured on text" in without.reading and "energy_share" not in without.data


def test_intruders_only_when_asked_and_priced_first(one):
    model, _ = one
    few, said = Spectra.of([o for o in Spectra.of(model).parts if o.name in (DOWN, Q)]), []
    f = looks_right(draw_forgetting(few, model, intruders=True, say=said.append))
    t = compare.intruders(few, model, say=lambda o: None)
    assert len(said) == 1 and "dense SVDs" in said[0] and "GPU" not in said[0]
    np.testing.assert_array_equal(f.data[["spike_margin", "energy_share", "energy_share_random"]],
        t[["spike_margin", "energy_share", "energy_share_random"]])
    assert any(np.allclose(np.array(o.y, float), t.energy_share_random)
        for o in nulls(f)) and any(np.allclose(np.array(o.y, float), 1) for o in nulls(f))
    assert f"hold {percent_text(t.energy_share.median())} of the leading energy" in f.reading and f"is {number_text(t.spike_margin.max())} of what it takes" in f.reading


def test_rank_budget_prices(one):
    spectra = Spectra.of(one[0])
    f = looks_right(draw_rank_budget(spectra, optimizer=2, itemsize=2))
    own = sum(o.A.numel() + o.B.numel() for o in spectra.parts)
    now = f.data[f.data["rank"] == 4].sum(numeric_only=True)
    assert now.parameters == own and now.bytes == 2*own and now.optimizer_bytes == 2*own and now.training_bytes == 6*own
    assert f"{own:,} parameters" in f.reading and f.proposal is None and len(f.data) == 28*8
    assert nulls(f)[0].x == (4, 4)


def test_rank_budget_proposes_what_trim_does(one):
    model, tok = one
    found = measure_directions(Spectra.of(model), model, text(tok)*2)
    f = looks_right(draw_rank_budget(model, functional=found, parameters=.5))
    assert f.proposal == rank_budget(found, .5)
    ranks = f.data.drop_duplicates("module").set_index("module").proposed
    assert all(ranks[n] == f.proposal["rank_pattern"].get(n, f.proposal["r"]) for n in found.names)
    used = sum(ranks[o["module"]]*(o["m"] + o["n"]) for o in found.modules)
    assert f"{int(used):,} parameters" in f.reading
    Recipe(**f.proposal)


def test_tokens_of_a_planted_direction(one):
    model, tok = planted("none", r=2)
    E = model.get_base_model().get_output_embeddings().weight.detach()
    cat = tok(" cat")["input_ids"][-1]
    layer = dict(model.named_modules())["base_model.model." + DOWN]
    with torch.no_grad():
        layer.lora_B["default"].weight.zero_()
        layer.lora_B["default"].weight[:, 0] = (E[cat] - E.mean(0))*5
    f = looks_right(draw_direction_tokens(model, tok, DOWN))
    top = f.data.loc[f.data.cosine.abs().idxmax()]
    assert top.id == cat and abs(abs(top.cosine)
        - 1) < 1e-4 and top.token in f.reading and "pushes towards" in f.reading
    assert {abs(x) for o in nulls(f) for x in o.x} == {f.data.null[0]} and .1 < f.data.null[0] < .5


def test_tokens_by_hand(one):
    model, tok = one
    for name, side in (DOWN, 0), (Q, 2):
        part = next(o for o in read_factors(model) if o.name == name)
        E = model.get_base_model().get_input_embeddings().weight.detach().double()
        T = torch.nn.functional.normalize(E - E.mean(0), dim=1)
        c = T @ compare._svd(part)[side][:, 0]
        t = looks_right(draw_direction_tokens(model, tok, name)).data
        np.testing.assert_allclose(t[(t.direction == 1) & (t.end == 1)].cosine, c.topk(5).values, atol=1e-5)


def test_alignment_is_compares_table(one):
    spectra, W = Spectra.of(one[0]), base_weight(one[0], DOWN)
    f = looks_right(draw_alignment(spectra, one[0], DOWN, k=32))
    t = compare.alignment(next(o for o in spectra.parts if o.name == DOWN), W, 32)
    pd.testing.assert_frame_equal(f.data, t)
    assert {o.name for o in nulls(f)} == {"by chance, k/d"}
    for o, d in zip(nulls(f), (256, 640)): np.testing.assert_allclose(np.array(o.y, float), t.k/d)
    row = t[t.k == 4].iloc[0]
    assert f"{percent_text(row.left)} of what it writes" in f.reading and f"(by chance {percent_text(4/256)})" in f.reading


def all_of(model, tok, module):
    spectra = Spectra.of(model)
    yield draw_overlap(spectra, spectra)
    yield draw_overlap(spectra, spectra, module)
    yield draw_amplification(spectra, model)
    yield draw_forgetting(spectra, model, text(tok))
    yield draw_rank_budget(spectra)
    yield draw_direction_tokens(model, tok, module)
    yield draw_alignment(spectra, model, module)


@pytest.mark.parametrize("kw", [dict(r=1), dict(zero=True), dict(r=3, targets=["down_proj"]),
    dict(r=1, zero=True, targets=r".*layers\.1\.mlp\.down_proj")], ids=str)
def test_odd_adapters_get_a_picture_and_a_sentence(kw):
    model, tok = planted("none", **kw)
    for f in all_of(model, tok, DOWN):
        looks_right(f)
        assert "nan" not in f.reading.split() and "–" not in f.reading, f.reading
        if kw.get("zero"): assert re.search(r"zero|At r =|moved by 0 ", f.reading), f.reading


def test_mistakes_are_named(one):
    model, tok = one
    spectra = Spectra.of(model)
    for call in (lambda: draw_overlap(spectra, spectra, "model.layers.1.mlp.dwn_proj"),
            lambda: draw_alignment(spectra, model, "model.layers.1.mlp.dwn_proj"),
            lambda: draw_direction_tokens(model, tok, "model.layers.1.mlp.dwn_proj")):
        with pytest.raises(RecipeError, match="Did you mean 'model.layers.1.mlp.down_proj'"): call()
    bare = Spectra.from_arrays(*spectra.to_arrays())
    with pytest.raises(AdapterError, match="no directions"): draw_overlap(bare, bare)
    with pytest.raises(RecipeError, match="of no module"): draw_amplification(Spectra([], []), model)
    with pytest.raises(RecipeError, match="no module in common"):
        draw_overlap([Factors("a", torch.ones(1, 3), torch.ones(4, 1), 1.)],
            [Factors("b", torch.ones(1, 3), torch.ones(4, 1), 1.)])
    inner = Factors("model.layers.0.x", torch.ones(1, 3), torch.ones(4, 1), 1.)
    from loranb.evaluate import questions
    with pytest.raises(RecipeError, match="neither reads nor writes"): questions._stream(inner, model)


def test_pages_need_nothing_else(one, tmp_path):
    f = draw_rank_budget(Spectra.of(one[0]))
    page = f.save(tmp_path/"a.html").read_text(encoding="utf-8")
    small = f.save(tmp_path/"b.html", include_plotlyjs="cdn").read_text(encoding="utf-8")
    assert len(page) > 1e6 > 60_000 > len(small) and not re.search(r"<script[^>]+\bsrc=",
        page) and re.search(r"<script[^>]+\bsrc=", small)
    assert "<title>Where should the rank go?</title>" in page
    ET.fromstring(f.save(tmp_path/"c.svg").read_text(encoding="utf-8"))
    with pytest.raises(RecipeError, match="must end in .svg or .html"): f.save(tmp_path/"d.png")


def test_text_stays_text():
    name = "<img src=x onerror=alert(1)>"
    f = Figure(f"{name}?", [Plot([dots([1, 2], [1, 2], name, hover=[name, name]), labels([1], [1], [name])], name,
        name, xticks=[(1, name)]), Plot([cells([[1.]], 0, 1, name, [[name]])], name)], name, pd.DataFrame(), name)
    for shown in f.figure.to_json(), str(f.still), f.figure.to_html(include_plotlyjs=False):
        assert "<img" not in shown.replace("\\u003c", "<")
    assert name in "".join(ET.fromstring(f.still).itertext())


odd = st.floats(-1e6, 1e6, width=32) | st.just(float("nan")) | st.just(0.)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(odd, odd, odd), max_size=12), st.sampled_from(["", "x", "y", "xy"]))
def test_any_numbers_give_a_picture(rows, log):
    x, y, z = np.array(rows, float).reshape(-1, 3).T
    looks_right(Figure("Any?", [Plot([line(x, y, "a"), null_line(x, z), band(x, y, z),
        dots(x, z, "b", hover=map(str, x))], "t", "x", log)], "One sentence that is long enough.", pd.DataFrame(rows)))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_any_map_gives_a_picture_with_every_cell_once(R, C, seed):
    g = np.random.default_rng(seed)
    v = np.where(g.random((R, C)) < .2, np.nan, g.random((R, C)))
    f = Figure("Any?", [Plot([cells(v, 0, 1, "v")])], "One sentence that is long enough.", pd.DataFrame(v))
    drawn = [d for e in ET.fromstring(looks_right(f).still).iter() for d in [e.get("d", "")] if d.endswith("z")]
    (x0, y0, x1, y1), = f._rects()[0]
    few, area = int(v.size <= 400), 0.
    for a, b, c, d in re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)", "".join(drawn)):
        area += (float(c) - float(a) + few)*(float(d) - float(b) + few)
    assert abs(area/((x1 - x0)*(y1 - y0)) - np.isfinite(v).mean()) < .05


def test_plotly_waits_until_it_is_needed():
    code = "import sys, loranb.evaluate.questions; print('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
