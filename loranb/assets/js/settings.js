// How long, and how fast: the numbers of the training loop and the course of the learning rate.
const LOW = -6, HIGH = -1, COURSES = ["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"];
const OPTIMS = ["auto", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "adafactor", "sgd"];
// A value that a recipe may have and the list has not, such as a schedule with arguments of its own, is added to the list.
const choose = (select, v) => { if (![...select.options].some(o => o.value === v)) select.append(h("option", { value: v }, v)); select.value = v; };
// Optimizer steps of a whole run; the twin of `count_steps` in loranb/core/recipe.py. 0 while the data is not known.
function countSteps(model) {
  const given = model.get("max_steps"), total = model.get("total");
  if (given > 0) return given;
  const batches = Math.ceil(total / model.get("per_device_train_batch_size"));
  return total ? Math.max(1, Math.ceil(model.get("num_train_epochs") * Math.ceil(batches / model.get("gradient_accumulation_steps")))) : 0;
}
// How much the run sees: of `n` steps with so many rows each, out of `total`.
function lengthWords(n, rows, total, packing) {
  if (!n) return sentence(packing ? "settings.packed_a_step" : "settings.rows_a_step", { rows: count(rows) });
  const seen = sentence(packing ? "settings.packed_seen" : "settings.rows_seen", { steps: count(n), rows: count(rows), all: count(n * rows) });
  if (!total) return seen;
  const passes = n * rows / total;
  return `${seen}, ${sentence("settings.passed", { n: passes, passes: num(passes, 2), total: count(total) })}`;
}
const rate = v => v === null || v === undefined ? "" : v >= .001 ? String(+v.toPrecision(3)) : (+v).toExponential();

function render({ model, el }) {
  const { root, body } = card(el, { title: sentence("settings.title"), sub: sentence("settings.question"), cls: "settings" });
  const range = h("input", { type: "range", min: LOW, max: HIGH, step: .05, "aria-label": sentence("settings.rate_slider"), oninput: e => give(model, { learning_rate: +(10 ** e.target.value).toPrecision(2) }) });
  const lr = typed(model, "learning_rate", { inputmode: "decimal", "aria-label": sentence("settings.rate_box") }, { read: readNumber, show: rate });
  const courses = COURSES.map(c => h("option", { value: c }, c === "constant_with_warmup" ? sentence("settings.constant_with_warmup") : c));
  const course = h("select", { "aria-label": sentence("settings.course"), onchange: e => give(model, { lr_scheduler_type: e.target.value }) }, courses);
  const optims = OPTIMS.map(o => h("option", { value: o }, o === "auto" ? sentence("settings.optim_auto") : o));
  const optim = h("select", { "aria-label": sentence("settings.optim"), title: sentence("settings.optim_help"), onchange: e => give(model, { optim: e.target.value }) }, optims);
  const warm = h("span"), picture = h("div", { class: "course" }), line = h("p", { class: "tiny line" });
  const number = (name, words, options) => { const f = typed(model, name, { inputmode: "numeric" }, { read: readNumber, ...options }); return { ...f, root: h("label", { title: name }, words, f.box) }; };
  // Steps or passes: the one that is given is written, the other one follows from it and stands as a hint.
  const steps = number("max_steps", sentence("settings.steps"), { show: v => v > 0 ? String(v) : "", read: t => t === "" ? -1 : readNumber(t) });
  const passes = number("num_train_epochs", sentence("settings.passes"), { show: v => model.get("max_steps") > 0 ? "" : String(v), read: t => t === "" ? model.get("num_train_epochs") : readNumber(t), commit: v => give(model, { num_train_epochs: v, max_steps: -1 }) });
  const batch = number("per_device_train_batch_size", sentence("settings.batch")), accumulate = number("gradient_accumulation_steps", sentence("settings.accumulate"));
  const length = number("max_length", sentence("settings.max_length")), seed = number("seed", sentence("settings.seed"));
  const boxes = [lr, steps, batch, accumulate, passes, length, seed], wrong = complaint(model, boxes.map(f => f.box));
  body.append(h("div", { class: "row rate" }, h("span", { class: "label" }, sentence("settings.rate")), lr.box), range, picture, h("div", { class: "row tiny shape" }, course, warm), h("div", { class: "row tiny shape" }, optim), h("div", { class: "boxes" }, boxes.slice(1).map(f => f.root)), line, wrong.root);

  function draw() {
    const v = model.get("learning_rate"), total = model.get("total"), rows = model.get("per_device_train_batch_size") * model.get("gradient_accumulation_steps"), given = model.get("max_steps");
    const n = countSteps(model);
    if (v > 0) { slide(range, Math.min(HIGH, Math.max(LOW, Math.log10(v)))); range.setAttribute("aria-valuetext", rate(v)); }
    for (const f of boxes) f.draw();
    steps.box.placeholder = given > 0 ? "" : n ? count(n) : "–";
    passes.box.placeholder = given > 0 ? total ? num(n * rows / total, 2) : "–" : "";
    choose(course, model.get("lr_scheduler_type")); choose(optim, model.get("optim"));
    const w = model.get("lr_scheduler_type") === "constant" ? 0 : model.get("warmup_steps"), warmup = w < 1 ? Math.ceil(n * w) : w;
    if (!w) fill(warm, sentence("settings.no_warmup"));
    else if (n || w >= 1) fill(warm, sentence("settings.warmup", { steps: count(warmup) }), h("span", { class: "wide" }, ` ${sentence("settings.warmup_steps", { n: warmup })}`));
    else fill(warm, sentence("settings.warmup_share", { percent: num(100 * w) }));
    line.textContent = lengthWords(n, rows, total, model.get("packing"));
    wrong.draw(); sketch(n, n ? Math.min(1, warmup / n) : Math.min(w, .9), model.get("lr_scheduler_type"), v);
  }
  function sketch(n, from, course, peak) {
    const w = Math.max(160, body.clientWidth), foot = 44, top = 6;
    const height = t => t < from ? t / from : course === "inverse_sqrt" ? (from ? Math.sqrt(from / t) : 1) : course === "linear" || course === "polynomial" ? (1 - t) / Math.max(1e-9, 1 - from) : course.startsWith("cosine") ? (1 + Math.cos(Math.PI * (t - from) / Math.max(1e-9, 1 - from))) / 2 : 1;
    const at = [...new Set([0, from, ...Array.from({ length: 65 }, (_, i) => i / 64)])].sort((a, b) => a - b), points = at.map(t => `${(1 + t * (w - 2)).toFixed(1)} ${(foot - (foot - top) * height(t)).toFixed(1)}`).join("L");
    const way = sentence(from ? "settings.picture_warmup" : "settings.picture", { percent: num(100 * from, 2), peak: rate(peak), course: course.replace(/_.*/, "") });
    const words = n ? `${way}, ${sentence("settings.in_all", { steps: count(n) })}` : way;
    fill(picture, s("svg", { viewBox: `0 0 ${w} 60`, height: 60, role: "img", "aria-label": words },
      s("path", { class: "under", d: `M1 ${foot}L${points}L${w - 1} ${foot}Z` }), s("line", { class: "axis", x1: 1, x2: w - 1, y1: foot, y2: foot }), s("path", { class: "over", d: `M${points}` }),
      s("text", { x: 0, y: 58 }, "0"), s("text", { x: w, y: 58, "text-anchor": "end" }, n ? sentence("common.step", { step: count(n) }) : sentence("settings.last_step"))));
  }
  return redraw(model, ["learning_rate", "lr_scheduler_type", "warmup_steps", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "seed", "optim", "packing", "total", "message"], root, draw);
}
export default { render };
