// Rows by their length, with the cut: the picture of `lengths_svg` in loranb/data/previews.py.
function lengthsPicture({ width = 1, kept = [], cut = [], open, limit, label = sentence("lengths.none") }, w) {
  const end = Math.max(1, kept.length) * width, foot = 62, x = v => 1 + v / end * (w - 2), most = Math.max(1, ...kept.map((n, i) => n + cut[i])), up = n => (foot - 16) * n / most, step = x(width) - x(0);
  const bars = (counts, base, cls) => counts.map((n, i) => n ? s("rect", { class: cls, x: x(i * width) + .1 * step, width: .8 * step, y: foot - base(i) - up(n), height: Math.max(up(n), .8) }) : null);
  const left = limit > end / 2, at = x(limit), word = (text, attrs) => s("text", { y: 9, ...attrs }, text);
  const cutAt = limit && sentence("lengths.cut", { limit: count(limit) }), all = sentence(open ? "lengths.end_and_more" : "lengths.end", { end: count(end) });
  const mark = !limit || !kept.length ? [] : limit < end ? [s("line", { class: "limit", x1: at, x2: at, y1: 1, y2: foot }), word(cutAt, { class: "limitword", x: at + (left ? -6 : 6), "text-anchor": left ? "end" : "start" })]
    : [word(`${cutAt} →`, { x: w, "text-anchor": "end" })];
  return s("svg", { viewBox: `0 0 ${w} 78`, height: 78, role: "img", "aria-label": label }, bars(kept, () => 0, "kept"), bars(cut, i => up(kept[i]), "lost"), s("line", { class: "axis", x1: 1, x2: w - 1, y1: foot, y2: foot }), mark,
    s("text", { x: 0, y: 76 }, "0"), s("text", { x: w, y: 76, "text-anchor": "end" }, kept.length ? all : ""));
}
