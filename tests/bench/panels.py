"""How long the live views take to redraw: 224 modules (a 7B model), 60 frames with everything measured, layout included. Prints JSON.
A frame that arrives, and what a person does: a module chosen, an earlier step, another k."""
import base64, json, pathlib, sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]/"browser"))
from lab import chromium
from page import panel_page
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum
from loranb.widgets.see.trim_views import Directions

KINDS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
# Three callbacks of one frame: before the drawing, the drawing that was asked for, after it (with a forced layout).
TIME = """async ([i, name, content, buffers]) => { let a, b; requestAnimationFrame(() => a = performance.now());
  name ? models[i].receive({ [name]: content }) : models[i].message(content, buffers);
  await new Promise(done => requestAnimationFrame(() => { document.body.offsetHeight; b = performance.now(); done(); })); return b - a; }"""


def measure(browser, r):
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=4096, n=4096, r=r, scaling=2.0) for l in range(32)
        for k in KINDS]
    rng, out = np.random.default_rng(0), {}
    for view in (LayerMap, Spectrum, Course, Directions):
        v, times = view(modules), {}
        page = panel_page(browser, v, width=370)
        def time(what, name, content, buffers=()):
            times.setdefault(what, []).append(page.evaluate(TIME,
                [0, name, content, [base64.b64encode(b).decode() for b in buffers]]))
        for t in range(1, 61):
            sigma = (np.sort(rng.random((224, r)), 1)[:, ::-1]*np.tanh(t/20)).astype(np.float32)
            more = dict(aware=sigma, effect=sigma*sigma, share=sigma[:, 0], relative=sigma[:, 0])
            time("frame", None, *v._message([(t*10, sigma, np.full((224, 2), (0.05, 0.1), np.float32), more)]))
        for i in range(20): time("module", "selected", modules[11*i]["name"])
        for i in range(20): time("step", "at", 30*i)
        if view is Spectrum:
            for k in range(1, r+1): time("k", "k", k)
        page.close()
        out[view.__name__] = {k: dict(median_ms=round(float(np.median(v)), 1), max_ms=round(max(v), 1)) for k,
            v in times.items()}
    return out


if __name__ == "__main__":
    with chromium() as b: print(json.dumps({f"r={r}": measure(b, r) for r in (16, 64)}, indent=1))
