"Quantize, Rank, Rows, Settings, Code and Flow: their traits, refusals and words, without a kernel or a browser; the words of all panels"
import ast, json, math, re, tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from loranb.data.chips import LOOKS
from loranb.data.previews import preview
from loranb.core.fields import RecipeError
from loranb.core.recipe import COLUMNS, count_steps, Recipe
from loranb.core.texts import all_texts, asset_text
from loranb.spectra.readings import METRICS
from loranb.widgets.choose.bill import Bill
from loranb.widgets.choose.code import Code
from loranb.widgets.data.columns import Columns
from loranb.widgets.data.doctor import FindingsPanel
from loranb.widgets.keep.samples import Samples
from loranb.widgets.see.spectra_views import Course, LayerMap, Spectrum
from loranb.widgets.see.trim_views import Directions, TrimAdvisor
from loranb.widgets.watch.flow import Flow
from loranb.widgets.watch.log import Log
from loranb.widgets.watch.monitor import Monitor, STATES
from loranb.widgets.watch.now import Now
from loranb.widgets.panel import Field
from loranb.widgets.choose.quantize import LEVELS, Quantize
from loranb.widgets.choose.rank import Rank
from loranb.widgets.data.rows import RowsPanel
from loranb.widgets.choose.settings import Settings

TABLE = ("table", "thead", "tbody", "tr", "th", "td")
PANELS = [Quantize, Rank, Columns, RowsPanel, FindingsPanel, Settings, Code, Flow]
TARGETS = [dict(name="q_proj", short="q", m=192, n=192, count=4), dict(name="down_proj", short="down", m=192, n=512,
    count=4)]
BAD = dict(model=["", " ", None, 3], quant=["nf5", None], bnb_4bit_use_double_quant=[1, "yes"],
    r=[0, -1, "eight", 2.5, True, None], lora_alpha=[0, -3, math.nan, "x"], use_rslora=["no"], use_dora=["yes"],
    optim=["adam"], target_modules=[[], "", [1]], data=[""], columns=[3, "user", dict(who="a")],
    acknowledged=["code", [1]], learning_rate=[0, -1, math.inf, "fast"], lr_scheduler_type=["cosin"],
    warmup_steps=[-1], max_steps=[0, -2, 1.5], num_train_epochs=[0], per_device_train_batch_size=[0],
    gradient_accumulation_steps=[0], max_length=[0], train_on=["user", None], packing=[1], group_by_length=["no"],
    seed=[-1, 1.5])


def fields_of(cls): return [n for n, t in cls.class_traits().items() if isinstance(t, Field)]


@pytest.mark.parametrize("cls", PANELS)
def test_alone_it_starts_where_the_recipe_starts(cls):
    panel = cls()
    for n in fields_of(cls): assert getattr(panel, n) == getattr(Recipe(), n), n
    assert panel.text() and isinstance(panel.still(), str)


@pytest.mark.parametrize("cls", PANELS)
def test_a_mistake_in_python_raises_and_one_in_the_browser_is_refused_with_a_message(cls):
    for n in fields_of(cls):
        for value in BAD[n]:
            with pytest.raises(RecipeError, match=n): cls(**{n: value})
            panel, back = cls(), []
            panel.send_state = lambda key=None: back.append(key)
            good = getattr(panel, n)
            panel.set_state({n: value})
            assert getattr(panel, n) == good and panel.message.startswith(f"{n} must be") and n in back


def test_every_field_is_a_field_of_the_recipe():
    names = {f.name for f in fields(Recipe)}
    for cls in PANELS: assert set(fields_of(cls)) <= names and set(fields_of(cls)) <= set(BAD)


def test_what_is_right_beside_a_mistake_is_taken():
    panel = Rank()
    panel.set_state(dict(r=0, lora_alpha=8))
    assert (panel.r, panel.lora_alpha) == (16, 8) and "r must be" in panel.message


def test_one_message_goes_when_the_browser_says_so_and_observers_may_write_another():
    panel = Quantize(message="There is no such model.")
    panel.observe(lambda c: setattr(panel, "message", f"There is no model {c.new}."), "model")
    panel.set_state(dict(model="org/x", message=""))
    assert panel.message == "There is no model org/x."


@given(r=st.integers(1, 4096), alpha=st.floats(1e-3, 1e4), rs=st.booleans(),
    on=st.sampled_from(["all-linear", ["q_proj"], ["down_proj"], ["other"], "pattern.*"]))
@settings(max_examples=30, deadline=None)
def test_rank_counts_and_draws_any_choice(r, alpha, rs, on):
    panel = Rank(r=r, lora_alpha=alpha, use_rslora=rs, target_modules=on, targets=TARGETS, params=2e6)
    count = sum(t["count"]*(t["m"]*r + r*t["n"]) for t in TARGETS if on == "all-linear" or t["name"] in on)
    assert panel.trained() == count and math.isclose(panel.scaling(), alpha/(math.sqrt(r) if rs else r))
    assert f"r {r} " in panel.text() and panel.still().startswith("<svg")


@given(text=st.text(), kind=st.sampled_from(["learned", "context", "special", "special-learned", "truncated",
    "padding"]))
@settings(max_examples=50, deadline=None)
def test_data_panels_escape_any_text(text, kind):
    finding = dict(code=text, severity="error", count=1, rows=[0], remedy=text)
    for panel, inside in ((RowsPanel(total=1, tokens=[[text, kind, 7]]), ("div", "bdi", "br")),
            (Columns(names=[text], examples=[[text]], taken={"user": text}), TABLE),
            (FindingsPanel(findings=[finding], looked=1, total=1), TABLE)):
        assert set(re.findall(r"<(?:/?)([^ >]*)", panel.still())) <= set(inside) and panel.text()


def test_rows_show_a_preview_and_turn_in_its_order():
    seen = preview(Recipe(data="petit/chat", max_length=50), 40)
    panel = RowsPanel()
    panel.show(seen)
    assert (panel.total, panel.places, panel.row) == (4000, 4000,
        1) and panel.tokens == seen.chips(0) and panel.lengths["label"] in panel.still()
    panel.order, panel.place = "truncated", 2
    panel.turn(seen)
    assert panel.places == 40 and panel.row == seen.order("truncated")[2] + 1 and "most cut off first" in panel.text()
    panel.order, panel.place = "", 3999
    panel.turn(seen)
    assert panel.row == 4000 and panel.tokens == seen.chips(3999)
    panel.show(preview(Recipe(data="petit/translate", split="test"), 10))
    assert panel.row <= panel.total < 4000 and json.dumps(panel.get_state(["tokens", "lengths", "shares", "reading"]))


def test_a_column_can_be_all_that_the_recipe_knows(): assert {r for r, _ in Columns().roles} == set(COLUMNS)


def test_doctor_words():
    finding = lambda code, severity: dict(code=code, severity=severity, count=2, rows=[0, 4], remedy="Mend it.")
    panel = FindingsPanel(findings=[finding("a", "error"), finding("b", "error"), finding("c", "warning")],
        acknowledged=["b"], looked=5, total=5)
    assert panel.open_errors() == ["a"] and panel.text() == "all 5 rows: error: a, 2 rows; error (acknowledged): b, 2 rows; warning: c, 2 rows"
    assert FindingsPanel(looked=5, total=9).text() == "the first 5 of 9 rows: nothing found"


def test_settings_words():
    assert "750 steps × 16 rows = 12,000 rows, 3 passes over 4,000; learning rate 0.0002, linear after 75 steps" in Settings(total=4000, max_steps=-1, num_train_epochs=3, per_device_train_batch_size=2,
        gradient_accumulation_steps=8, learning_rate=2e-4, lr_scheduler_type="linear", warmup_steps=.1).text()
    assert Settings(max_steps=-1, learning_rate=4e-3,
        per_device_train_batch_size=32).text() == "32 rows a step; learning rate 0.004, cosine after 3 % of warm-up"
    assert Settings(lr_scheduler_type="constant").text().endswith("constant from the start")
    assert "30 steps × 4 packed rows" in Settings(max_steps=30, per_device_train_batch_size=4, packing=True).text()


@given(n=st.integers(1, 300), batch=st.integers(1, 9), more=st.integers(1, 5), epochs=st.sampled_from([.3, 1, 2.5]))
@settings(max_examples=25)
def test_steps_are_counted_as_the_trainer_counts(n, batch, more, epochs):
    import torch
    from transformers import Trainer, TrainingArguments
    r = Recipe(max_steps=-1, num_train_epochs=epochs, per_device_train_batch_size=batch,
        gradient_accumulation_steps=more)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(output_dir=folder, use_cpu=True, report_to="none", num_train_epochs=epochs,
            per_device_train_batch_size=batch, gradient_accumulation_steps=more)
        trainer = Trainer(model=torch.nn.Linear(1, 1), args=args, train_dataset=[0]*n)
        steps = trainer.set_initial_training_values(args, trainer.get_train_dataloader())[-1]
    assert steps == count_steps(r, n)


@given(steps=st.integers(-1, 10**6).filter(bool), warm=st.one_of(st.floats(0, .99), st.integers(1, 10**6)),
    kind=st.sampled_from(["cosine", "linear", "constant", "constant_with_warmup"]), t=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_course_is_a_share(steps, warm, kind, t):
    panel = Settings(max_steps=steps, warmup_steps=warm, lr_scheduler_type=kind)
    assert 0 <= panel.course(t) <= 1 and panel.still().startswith("<svg")


def test_the_course_is_that_of_transformers():
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    for kind in ("cosine", "linear", "constant", "constant_with_warmup"):
        panel = Settings(max_steps=200, warmup_steps=.1, lr_scheduler_type=kind)
        optim = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
        course = transformers.get_scheduler(kind, optim, num_warmup_steps=panel.warmup(), num_training_steps=200)
        for step in range(200):
            assert math.isclose(course.get_last_lr()[0], panel.course(step/200), abs_tol=1e-6), (kind, step)
            optim.step(); course.step()


def test_levels_are_those_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    for q in ("nf4", "fp4"):
        for ours, theirs in zip(LEVELS[q], sorted(functional.get_4bit_type(q, device="cpu").tolist())):
            assert abs(ours - theirs) < 5e-5


def test_quantize_words():
    c = Quantize().choices
    panel = Quantize(params=7e9, layer="a", choices={q: dict(v, error=.1234, error_double=.1299, bytes=7e9*v["bits"]/8,
        bytes_double=7e9*v["bits_double"]/8) for q, v in c.items()})
    assert panel.text() == "petit · 7 B: nf4 + double, 4.13 bits a weight, error of a 13 %, frozen base 3.6 of 14.0 GB"
    panel.quant = "none"
    assert panel.text() == "petit · 7 B: none, 16 bits a weight, error of a 12 %, frozen base 14.0 GB" and panel.still() == ""


def test_every_panel_is_small_and_shows_itself_without_javascript():
    for cls, name in zip(PANELS, "quantize rank columns rows doctor settings code flow".split()):
        assert len(asset_text(f"js/{name}.js")) < 8000 and asset_text(f"js/{name}.js").rstrip().endswith("export default { render };") and "innerHTML" not in asset_text(f"js/{name}.js")
        bundle = cls()._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        assert data["text/plain"] == cls().text() and "application/vnd.jupyter.widget-view+json" in data
        json.dumps({k: v for k, v in cls().get_state().items() if k[0] != "_" and k not in ("layout", "comm")})


PACKAGE = Path(__file__).parents[1]/"loranb"
RUNS = [*STATES, "starting", "skipping"]  # the states of a run, and what a click makes of them at once
# What a made name may end in, by its beginning.
MADE = {"map.": METRICS, "map.above_": METRICS, "map.chance_": ["share", "entropy_rank", "top_share"], "metric.": METRICS,
    "course.": ["appeared", "grew", "shrank"], "course.mark_": ["nan", "spike", "still"],
    "spectrum.figure_": ["worst", "expected", "measured", "energy", "module", "adapter"],
    "doctor.sign_": ["error", "warning", "note"], "rows.kind_": LOOKS, "rows.on_": ["assistant", "last", "all"],
    "monitor.state_": RUNS, "monitor.waits_": ["pausing", "stopping"],
    "monitor.button_": ["train", "starting", "pause", "stop", "skip", "resume", "anew", "again"],
    "monitor.loss_": ["train", "held"], "monitor.said_": ["train", "held"], "monitor.column_": ["step", "train", "held"]}


def after(code, at):
    "Where the bracket, string or template of JavaScript that begins at `at` is over"
    if code[at] in "\"'": return re.compile(rf"(?:\\.|[^{code[at]}\\])*.").match(code, at + 1).end()
    end, template = {"(": ")", "[": "]", "{": "}", "`": "`"}[code[at]], code[at] == "`"
    at += 1
    while code[at] != end:
        inner = code.startswith("${", at) if template else code[at] in "([{`\"'"
        at = after(code, at + template) if inner else at + 1
    return at + 1


def listed(code):
    "What stands between the commas of a bracket of JavaScript"
    out, at = [""], 1
    while at < len(code) - 1:
        end = after(code, at) if code[at] in "([{`\"'" else at + 1
        if code[at] == ",": out.append("")
        else: out[-1] += code[at:end]
        at = end
    return [o.strip() for o in out]


def asked_in_js(script):
    "Pairs of the names that a call of `sentence` may ask for and the values that it gives, None where they are not spelled out"
    for call in re.finditer(r"\bsentence(?=\()", script):
        name, *values = listed(script[call.end():after(script, call.end())])
        names = {*re.findall(r'"(\w+\.\w+)"', name)}
        for start in re.findall(r"`([\w.]+)\$\{\w+(?:\.\w+)*\}`", name): names |= {start + o for o in MADE[start]}
        keys = {re.match(r"\w*", o)[0] for o in listed(values[0]) if o} if values and values[0][0] == "{" else None
        yield names, keys if values else set()


def asked_in_python(code):
    "The same of a module"
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "sentence": continue
        first, names = call.args[0], set()
        choices = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
        for o in choices:
            if isinstance(o, ast.Constant): names.add(o.value)
            else: names |= {o.values[0].value + end for end in MADE[o.values[0].value]}
        yield names, None if any(k.arg is None for k in call.keywords) else {k.arg for k in call.keywords}


def asked():
    "All calls of `sentence` in the package: file, names, values"
    for path in sorted(PACKAGE.rglob("*.[jp][sy]")):
        find = asked_in_js if path.suffix == ".js" else asked_in_python
        for names, given in find(path.read_text(encoding="utf-8")): yield path.name, names, given


def test_every_sentence_is_there_and_gets_its_values():
    calls = [*asked()]
    assert len(calls) > 300 and all(names for _, names, _ in calls)
    for file, names, given in calls:
        for name in names:
            assert name in all_texts(), (file, name)
            needed = set(re.findall(r"\{(\w+)", all_texts()[name]))
            assert given is None or needed <= given, (file, name, needed - given)


def test_every_sentence_is_asked_for():
    assert not set(all_texts()) - {o for _, names, _ in asked() for o in names}


@pytest.mark.parametrize("cls", [*PANELS, Bill, Course, Directions, LayerMap, Log, Monitor, Now, Samples, Spectrum, TrimAdvisor])
def test_a_panel_gets_the_texts_that_its_script_asks_for(cls):
    texts, script = cls()._esm.split(";\n", 1)
    assert {o for names, _ in asked_in_js(script) for o in names} <= {*json.loads(texts.removeprefix("const TEXTS = "))}
