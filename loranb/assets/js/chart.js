// Charts: the geometry of loranb/core/charts.py in the browser, and values read by pointer or arrow keys.
const MARKS = [1, 1.5, 2, 3, 5, 7];
const decades = (lo, hi, marks, more = 0) => {
  const out = [];
  for (let e = Math.floor(Math.log10(lo)) - more; e <= Math.ceil(Math.log10(hi)) + more; e++) for (const m of marks) out.push(Number(`${m}e${e}`));
  return out;
};
function logRange(lo, hi) {
  const grid = decades(lo, hi, MARKS, 1), a = grid.findLast(g => g <= lo * (1 + 1e-9)), b = grid.find(g => g >= hi * (1 - 1e-9));
  return a < b ? [a, b] : [grid[grid.indexOf(a) - 1], grid[grid.indexOf(a) + 1]];
}
function logTicks(lo, hi) {
  let t = [];
  for (const marks of [[1], [1, 3], [1, 2, 5], MARKS]) { t = decades(lo, hi, marks).filter(v => v >= lo && v <= hi); if (t.length > 2) break; }
  const every = Math.ceil(t.length / 6);
  return t.filter((_, i) => i % every === 0);
}
function linTicks(last, n = 4) {
  const part = Math.max(last / n, 1), mag = 10 ** Math.floor(Math.log10(part)), step = [1, 2, 5, 10].map(m => m * mag).find(m => m >= part * 0.8), out = [];
  for (let v = 0; v <= last; v += step) out.push(v);
  return out;
}
const path = pts => pts.length ? "M" + pts.map(p => `${p[0].toFixed(1)} ${p[1].toFixed(1)}`).join("L") : "";
const label = (x, y, text, attrs) => s("text", { x, y, ...attrs }, String(text));
const least = (a, start = Infinity) => { for (const v of a) if (v < start) start = v; return start; };
const most = (a, start = -Infinity) => { for (const v of a) if (v > start) start = v; return start; };
// A plot area: a linear axis along, a logarithmic one up.
function axes(width, height, xlim, ylim, { left = 40, right = 14, top = 14, bottom = 24 } = {}) {
  const x0 = left, x1 = width - right, y0 = height - bottom, y1 = top, [lo, hi] = ylim;
  const x = v => x0 + (v - xlim[0]) / (xlim[1] - xlim[0]) * (x1 - x0);
  const y = v => y1 + Math.log(hi / Math.min(Math.max(v, lo), hi)) / Math.log(hi / lo) * (y0 - y1);
  const grid = (ticks, up = 6) => [
    ...logTicks(lo, hi).flatMap(t => [s("line", { class: "rule", x1: x0, x2: x1, y1: y(t), y2: y(t) }), label(x0 - 6, y(t) + 4, num(t), { "text-anchor": "end" })]),
    ...ticks.map(t => label(x(t), height - up, count(t), { "text-anchor": "middle" }))];
  return { x, y, x0, x1, y0, y1, width, height, xlim, ylim, grid };
}
// Labels at the ends of lines, kept `gap` apart and above `hi`.
function spread(ys, gap, hi) {
  const order = ys.map((_, i) => i).sort((a, b) => ys[a] - ys[b]), out = [...ys], n = order.length;
  for (let i = 1; i < n; i++) out[order[i]] = Math.max(out[order[i]], out[order[i - 1]] + gap);
  if (n) out[order[n - 1]] = Math.min(out[order[n - 1]], hi);
  for (let i = n - 2; i >= 0; i--) out[order[i]] = Math.min(out[order[i]], out[order[i + 1]] - gap);
  return out;
}
// The range of positive finite numbers, at most four decades.
function sigmaRange(values) {
  let lo = Infinity, hi = 0;
  for (const v of values) if (v > 0 && Number.isFinite(v)) { if (v < lo) lo = v; if (v > hi) hi = v; }
  return hi ? logRange(Math.max(lo / 1.3, hi / 1e4), hi * 1.1) : [0.1, 1];
}
const noiseKey = (x, y) => [s("rect", { class: "noise", x, y: y - 8, width: 14, height: 9 }), label(x + 19, y, sentence("common.noise"))];
// Numbers out of a trait or a message that holds float32 bytes.
const floats = v => !v ? new Float32Array() : new Float32Array(v.buffer ? v.buffer.slice(v.byteOffset, v.byteOffset + v.byteLength) : v);
// Text that changes only when it differs, so that nothing flickers and a screen reader is not told twice.
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const tell = (node, text) => say(node, text.replaceAll(" %", "\u00a0%"));

// A picture in a box of fixed height. The pointer, or the arrow keys while it has the focus, pick a place; `read(place)` gives the marks and the words for it.
// `near(x, y)` turns pixels into a place, `move(place, dx, dy)` steps from one place to the next, undefined being none.
function chart(height, name, { near, move, read }) {
  const svg = s("svg", { role: "img", height }), over = s("g", { class: "over", "aria-hidden": "true" });
  const said = h("span", { class: "unseen", "aria-live": "polite" }), root = h("div", { class: "chart", tabindex: 0, role: "group", "aria-label": sentence("common.arrow_keys", { name }) }, svg, said);
  let place, ax = null, byKey = false;
  const mark = () => {
    const got = ax && place !== undefined ? read(place, ax) : undefined;
    fill(over, got && got.marks);
    if (got) over.append(...tip(got.text, got.x, ax));
    say(said, got && byKey ? got.text : "");
  };
  const go = (p, key) => { place = p; byKey = key; mark(); };
  svg.addEventListener("pointermove", e => { if (ax) { const b = svg.getBoundingClientRect(); go(near((e.clientX - b.left) * ax.width / b.width, (e.clientY - b.top) * ax.height / b.height, ax), false); } });
  svg.addEventListener("pointerleave", () => go(undefined, false));
  root.addEventListener("blur", () => go(undefined, false));
  root.addEventListener("keydown", e => {
    const d = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (e.key === "Escape") go(undefined, true);
    else if (d && ax) { e.preventDefault(); go(move(place, d[0], d[1]), true); }
  });
  return { root, width: () => Math.max(200, Math.round(root.clientWidth || 320)), draw: (axis, words, ...kids) => {
    ax = axis; svg.setAttribute("viewBox", `0 0 ${ax.width} ${ax.height}`); svg.setAttribute("aria-label", words);
    fill(svg, ...kids, over); mark();
  } };
}
// The words for a place, at the top of the picture, on the side where there is room.
function tip(text, x, ax) {
  const wide = text.length * 6 + 12, at = Math.min(Math.max(x - wide / 2, 0), ax.width - wide);
  return [s("rect", { class: "tip", x: at, y: 0, width: wide, height: 18, rx: 5 }), label(at + 6, 13, text)];
}
