"""How long the live views take to redraw: 224 modules (a 7B model), 60 frames, each new frame drawn, layout included. Prints JSON."""
import json, pathlib, sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]/"browser"))
from lab import chromium
from page import panel_page
from loranb.widgets.spectra_views import Course, LayerMap, Spectrum

KINDS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
# Three callbacks of one frame: before the drawing, the drawing that the message asks for, after it (with a forced layout).
TIME = """async ([i, content, buffers]) => { let a, b; requestAnimationFrame(() => a = performance.now()); models[i].message(content, buffers);
  await new Promise(done => requestAnimationFrame(() => { document.body.offsetHeight; b = performance.now(); done(); })); return b - a; }"""


def measure(browser, r):
    import base64
    modules = [dict(name=f"layers.{l}.{k}", layer=l, kind=k, m=4096, n=4096, r=r, scaling=2.0) for l in range(32) for k in KINDS]
    rng, out = np.random.default_rng(0), {}
    for view in (LayerMap, Spectrum, Course):
        v, times = view(modules), []
        page = panel_page(browser, v, width=370)
        for t in range(1, 61):
            sigma = np.sort(rng.random((224, r)), 1)[:, ::-1]*np.tanh(t/20)
            content, buffers = v._message([(t*10, sigma.astype(np.float32), np.full((224, 2), (0.05, 0.1), np.float32))])
            times.append(page.evaluate(TIME, [0, content, [base64.b64encode(b).decode() for b in buffers]]))
        page.close()
        out[view.__name__] = dict(least_ms=round(min(times), 1), median_ms=round(float(np.median(times)), 1), max_ms=round(max(times), 1))
    return out


if __name__ == "__main__":
    with chromium() as b: print(json.dumps({f"r={r}": measure(b, r) for r in (16, 64)}, indent=1))
