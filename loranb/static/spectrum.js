function render({ model, el }) {
  const { root, body, subline } = card(el, { title: "Is my rank too high?", cls: "spectrum" }), read = h("p", { class: "read" });
  let sigma = [], f = {};
  const plot = chart(216, "Singular values", {
    near: (x, _, ax) => Math.min(Math.max(Math.round((x - ax.x0) / (ax.x1 - ax.x0) * sigma.length + 0.5), 1), sigma.length),
    move: (i, dx) => Math.min(Math.max((i ?? (dx > 0 ? 0 : sigma.length + 1)) + dx, 1), sigma.length),
    read: (i, ax) => {
      const v = sigma[i - 1];
      if (v === undefined || !f.norm) return;
      let e = 0; for (let j = 0; j < i; j++) e += sigma[j] ** 2;
      return { x: ax.x(i), text: `σ${i} = ${num(v)}, ${num(100 * e / f.norm ** 2)} % of the energy up to here`, marks: [s("circle", { fill: "var(--accent)", cx: ax.x(i), cy: ax.y(v), r: 6 })] };
    } });
  body.append(plot.root, h("div", { class: "reading" }, read));
  function draw(st, m) {
    const band = bandOf(st, m), name = m < 0 ? "" : st.modules[m].name, W = plot.width(), H = 216;
    sigma = spectrumOf(st, m); f = figures(sigma, band);
    const n = Math.max(sigma.length, 1), known = f.noise !== null, ax = axes(W, H, [0.5, n + 0.5], sigmaRange(known ? [...sigma, ...band] : sigma), { top: 22, bottom: 40 }), gap = ax.x(2) - ax.x(1);
    const ticks = [], part = Math.max(1, Math.ceil((n - 1) / (W / 40)));
    for (let i = 1; i <= sigma.length; i += part) ticks.push(i);
    const reading = sigma.length ? spectrumReading(sigma, f) : "No singular values yet.", at = ax.x(f.k99 + 0.5), left = f.k99 > n / 2;
    fill(subline, "Singular values of BA · ", h("span", { class: "mono" }, name || "no module"));
    plot.draw(ax, `Singular values of ${name || "one update"}. ${reading}`, ax.grid(ticks, 26),
      known && [s("rect", { class: "noise", x: ax.x0, width: ax.x1 - ax.x0, y: ax.y(band[1]), height: ax.y(band[0]) - ax.y(band[1]) }), ...noiseKey(ax.x0, H - 5)],
      sigma.flatMap((v, i) => {
        if (!(v > 0)) return [];
        const x = ax.x(i + 1), y = ax.y(v), c = v <= band[1] ? "quiet" : "stem";
        return [s("line", { class: c, x1: x, x2: x, y1: ax.y0, y2: y, "stroke-width": Math.min(3, gap * 0.4) }), s("circle", { class: c, cx: x, cy: y, r: Math.min(4.5, gap * 0.4) })];
      }),
      f.k99 && [s("line", { class: "cut", x1: at, x2: at, y1: 6, y2: ax.y0 }), label(at + (left ? -6 : 6), 14, `99 % of the energy: k = ${f.k99}`, { class: "cut", "text-anchor": left ? "end" : "start" })],
      !sigma.length && label(W / 2, H / 2, "no spectrum yet", { class: "empty", "text-anchor": "middle" }));
    tell(read, reading);
  }
  return follow(model, [], root, draw);
}
export default { render };
