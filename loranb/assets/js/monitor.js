// In each state: what a click on a button asks for, nothing being none, and which words it has.
const BUTTONS = { ready: [["train", "train"]], starting: [["", "starting"]], loading: [["pause", "pause"], ["stop", "stop"]], training: [["pause", "pause"], ["stop", "stop"]], pausing: [["", "pause"], ["stop", "stop"]],
  stopping: [["", "pause"], ["", "stop"]], finishing: [["stop", "skip"]], skipping: [["", "skip"]], paused: [["resume", "resume"], ["train", "anew"]], stopped: [["resume", "resume"], ["train", "anew"]],
  done: [["train", "again"]], failed: [["resume", "resume"], ["train", "anew"]] };
const WISHES = { stop: "stopping", pause: "pausing", train: "starting", resume: "starting" };
const UNTIL = { stopping: ["loading", "training", "pausing"], pausing: ["loading", "training"], skipping: ["finishing"] };  // a wish lasts while Python still says one of these
const RUNNING = ["loading", "training", "pausing", "stopping", "finishing"];
// The centred running mean of loranb/runs/report.py.
function smooth(y) {
  const n = y.length, half = Math.max(4, Math.floor(n / 60)), total = [0];
  for (const v of y) total.push(total[total.length - 1] + v);
  return Array.from(y, (_, i) => { const lo = Math.max(i - half, 0), hi = Math.min(i + Math.min(half, i), n - 1); return (total[hi + 1] - total[lo]) / (hi - lo + 1); });
}
function lossRange(y, line, held) {
  let core = [...line, ...held].filter(v => v > 0);
  if (!core.length) core = [0.1, 1];
  const lo = least(core), hi = most(core);
  return logRange(Math.max(least(y.filter(v => v > 0), lo), lo / 2), Math.min(most(y, hi), 2 * hi));
}
const nearest = (sorted, v) => { let a = 0, b = sorted.length - 1; while (b - a > 1) { const m = (a + b) >> 1; if (sorted[m] < v) a = m; else b = m; } return b < 0 ? -1 : Math.abs(sorted[a] - v) <= Math.abs(sorted[b] - v) ? a : b; };

function render({ model, el }) {
  const box = h("div", { class: "buttons" }), { root, body } = card(el, { title: sentence("monitor.title"), sub: sentence("monitor.question"), cls: "monitor", extra: box });
  let t = [], y = [], line = [], te = [], ye = [], stale = true, wish = "", wishRun = "", shown = "";

  // What is known: the traits, and the points that came since as messages.
  const reload = () => { stale = true; cleanup.ask(); };
  const load = () => { t = Array.from(floats(model.get("steps"))); y = Array.from(floats(model.get("loss"))); stale = false; };
  const onMessage = (msg, buffers) => {
    if (msg.kind === "clear") { t = []; y = []; return cleanup.ask(); }
    if (msg.kind !== "points") return;
    if (stale) load();
    const at = floats(buffers[0]), v = floats(buffers[1]);
    at.forEach((o, i) => { if (!t.length || o > t[t.length - 1]) { t.push(o); y.push(v[i]); } });
    cleanup.ask();
  };

  // Buttons: a click shows at once; Python's state has the last word.
  const click = kind => {
    if (!kind) return;
    wish = kind === "stop" && model.get("state") === "finishing" ? "skipping" : WISHES[kind]; wishRun = model.get("run_id");
    model.send(["stop", "pause"].includes(kind) ? { kind, run: wishRun } : { kind });
    cleanup.ask();
  };
  const settle = () => { if (!(UNTIL[wish] || []).includes(model.get("state")) || model.get("run_id") !== wishRun) wish = ""; cleanup.ask(); };
  const drawButtons = state => {
    const nothing = state === "failed" && !model.get("step"), key = `${state}|${nothing}|${model.get("buttons")}|${model.get("stop_help")}`;
    if (key === shown) return;
    shown = key;
    const focused = box.contains(document.activeElement) && document.activeElement.textContent;
    const help = words => ["stop", "pause"].includes(words) && model.get("stop_help") || null;
    const button = ([kind, words], i) => h("button", { class: i ? "" : "p", "aria-disabled": kind ? null : "true", title: help(words), onclick: () => click(kind) }, sentence(`monitor.button_${words}`));
    fill(box, model.get("buttons") && BUTTONS[nothing ? "ready" : state].map(button));
    if (focused && box.firstChild) ([...box.children].find(b => b.textContent === focused) || box.firstChild).focus();
  };

  const plot = chart(200, sentence("monitor.chart"), {
    near: (x, _, ax) => (x - ax.x0) / (ax.x1 - ax.x0) * ax.xlim[1],
    move: (at, dx) => { const n = t.length, i = at === undefined ? n - 1 : nearest(t, at) + dx * Math.ceil(n / 60); return t[Math.min(Math.max(i, 0), n - 1)]; },
    read: (at, ax) => {
      const i = nearest(t, at), j = nearest(te, at);
      if (i < 0 && j < 0) return;
      const x = ax.x(i < 0 ? te[j] : t[i]), held = j >= 0 && (i < 0 || Math.abs(ax.x(te[j]) - x) < 12 || te[j] <= t[i]);
      const losses = [];
      if (i >= 0) losses.push(sentence("monitor.loss_train", { loss: num(line[i]) }));
      if (held) losses.push(sentence(i >= 0 && te[j] !== t[i] ? "monitor.loss_held_at" : "monitor.loss_held", { loss: num(ye[j]), step: count(te[j]) }));
      return { x, text: sentence("monitor.values", { step: count(i < 0 ? te[j] : t[i]), losses: losses.join(", ") }), marks: [s("line", { class: "hair", x1: x, x2: x, y1: ax.y1, y2: ax.y0 }),
        i >= 0 && s("circle", { class: "dot", fill: "var(--accent)", cx: x, cy: ax.y(line[i]), r: 4 }), held && s("circle", { class: "held", cx: ax.x(te[j]), cy: ax.y(ye[j]), r: 4 })] };
    } });
  const state = h("span", { role: "status" }), doing = h("span", {}), steps = h("span", {}), note = h("p", { class: "error", "aria-live": "polite" }), table = h("table", {});
  const details = h("details", { ontoggle: () => cleanup.ask() }, h("summary", {}, sentence("monitor.show_table")), h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": sentence("monitor.table") }, table));
  body.append(plot.root, h("div", { class: "row tiny under" }, h("span", {}, h("i", { "aria-hidden": "true" }), state, doing, steps), details), note);

  function drawChart() {
    const W = plot.width(), narrow = W < 430, last = Math.max(1, model.get("max_steps") || 0, most(t, 0), most(te, 0));
    const ax = axes(W, 200, [0, last], lossRange(y, line, ye), { right: narrow ? 14 : 122, top: narrow ? 32 : 14 });
    const ends = [[line, "train"], [ye, "held"]].filter(e => e[0].length).map(([v, c]) => ({ v: v[v.length - 1], c }));
    const keys = spread(ends.map(e => ax.y(e.v)), 14, ax.y0 - 2).flatMap((at, i) => {
      const { v, c } = ends[i], x = narrow ? ax.x0 + i * Math.min(120, (W - ax.x0) / 2) : ax.x1 + 9, yy = narrow ? 9 : at;
      return [s("line", { class: c, "stroke-width": 2, x1: x, x2: x + 10, y1: yy, y2: yy }), c === "held" && s("circle", { class: c, cx: x + 5, cy: yy, r: 3 }), label(x + 14, yy + 4, sentence(`monitor.loss_${c}`, { loss: num(v) }), { class: c })];
    });
    const pts = v => path(t.map((o, i) => [ax.x(o), ax.y(v[i])]));
    const said = ends.map(e => sentence(`monitor.said_${e.c}`, { loss: num(e.v) })).join(", ") || sentence("common.no_step");
    plot.draw(ax, sentence("monitor.picture", { losses: said }), ax.grid(ends.length || last > 1 ? linTicks(last, narrow ? 3 : 4) : []), t.length && [
      s("path", { class: "train", "data-line": "raw", d: pts(y), "stroke-width": 1, "stroke-opacity": 0.35, "stroke-linejoin": "round" }), s("path", { class: "train", "data-line": "mean", d: pts(line), "stroke-width": 2, "stroke-linejoin": "round" })],
      te.length && s("path", { class: "held", "data-line": "held", d: path(te.map((o, i) => [ax.x(o), ax.y(ye[i])])), "stroke-width": 2 }),
      te.map((o, i) => s("circle", { class: "held", cx: ax.x(o), cy: ax.y(ye[i]), r: i === te.length - 1 ? 3.5 : 2.2 })), keys, !ends.length && label(W / 2, 100, said, { class: "empty", "text-anchor": "middle" }));
  }
  function drawTable() {
    const every = (a, n) => a.filter((_, i) => i === a.length - 1 || i % Math.ceil(a.length / n) === 0), at = every(te.length > 1 ? te : t, 20);
    fill(table, h("tr", {}, ["step", "train", "held"].map(o => h("th", { scope: "col" }, sentence(`monitor.column_${o}`)))), at.map(o => {
      const i = nearest(t, o), j = te.indexOf(o);
      return h("tr", {}, [count(o), num(i < 0 ? null : line[i]), num(j < 0 ? null : ye[j])].map(v => h("td", {}, v)));
    }));
  }
  function draw() {
    if (stale) load();
    const ok = t.map((_, i) => i).filter(i => Number.isFinite(y[i])), evals = (model.get("evals") || []).filter(e => Number.isFinite(e[1]));
    if (ok.length < t.length) { t = ok.map(i => t[i]); y = ok.map(i => y[i]); }
    line = smooth(y); te = evals.map(e => e[0]); ye = evals.map(e => e[1]);
    const now = wish || model.get("state"), max = model.get("max_steps"), step = Math.max(model.get("step"), most(t, 0));
    drawButtons(now); drawChart();
    root.dataset.state = now;
    const work = RUNNING.includes(now) && model.get("doing"), waits = ["pausing", "stopping"].includes(now);
    say(state, work && waits ? sentence(`monitor.waits_${now}`) : sentence(`monitor.state_${now}`));
    say(doing, work ? waits ? `, ${sentence("monitor.waiting_for", { work })}` : `: ${work}` : "");
    say(steps, step || max ? ` · ${sentence(max ? "common.step_of" : "common.step", { step: count(step), last: count(max) })}` : "");
    const running = RUNNING.includes(now), text = model.get("message") || running && model.get("buttons") && model.get("stop_help") || "";
    say(note, text); note.classList.toggle("quiet", now !== "failed" && now !== "ready");
    if (details.open) drawTable();
  }
  const cleanup = Object.assign(() => {}, { ask: () => {} });
  const stop = redraw(model, ["evals", "max_steps", "step", "stop_help", "buttons", "doing"], root, draw);
  cleanup.ask = stop.ask;
  const heard = [["msg:custom", onMessage], ["change:steps", reload], ["change:loss", reload], ["change:state", settle], ["change:message", settle], ["change:run_id", settle]];
  for (const [name, f] of heard) model.on(name, f);
  return () => { stop(); for (const [name, f] of heard) model.off(name, f); };
}
export default { render };
