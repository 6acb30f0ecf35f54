"""The configuration panels by keyboard and mouse, without a kernel"""
import json, re

import pytest
from loranb.data.previews import length_bins, lengths_reading, lengths_svg
from loranb.core.recipe import Recipe
from loranb.widgets.choose.bill import Bill
from loranb.widgets.choose.code import Code
from loranb.widgets.data.columns import Columns
from loranb.widgets.data.doctor import FindingsPanel
from loranb.widgets.watch.flow import Flow
from loranb.widgets.choose.quantize import Quantize
from loranb.widgets.choose.rank import Rank
from loranb.widgets.data.rows import RowsPanel
from loranb.widgets.choose.settings import Settings
from page import panel_page, receive, state

SHAPES = dict(q=(192, 192), k=(96, 192), v=(96, 192), o=(192, 192), gate=(512, 192), up=(512, 192), down=(192, 512))
TARGETS = [dict(name=f"{k}_proj", short=k, m=m, n=n, count=4) for k, (m, n) in SHAPES.items()]
HOSTILE = [[text, kind, i, *more] for i, (text, kind,
    *more) in enumerate([("\u202e<script>window.hit=1</script>\x00", "learned"),
    ("<img src=x onerror=window.hit=1>", "context"), ("\n", "context"), ("مرحبا", "learned"), ("👩‍👩‍👧", "special"),
    ("W"*300, "special-learned"), ("", "context"), ("Z͑ͫ̓ͪ̂ͫ̽͏A", "truncated"), ("</s>", "special-truncated"),
    ("<pad>", "padding", 1234)])]
LENGTHS = dict(width=10, kept=[0, 5, 9, 4, 0, 0], cut=[0, 0, 0, 1, 2, 1], open=True, limit=35, label="22 rows")
SHARES = dict(learned=.4, context=.6, truncated=.123, padding=.271)


FINDINGS = [dict(code=code, severity=severity, count=12, rows=[17, 201, 123456],
    remedy="Do what is said here, at some length, so that it fills two lines at the least.") for code,
    severity in (("no-end", "error"), ("gone", "error"), ("twice", "warning"), ("mail", "note"))]


def paced(**kw):
    return Settings(total=4000, max_steps=400, per_device_train_batch_size=32, gradient_accumulation_steps=1,
        learning_rate=4e-3, **kw)
def rank(**kw): return Rank(targets=TARGETS, params=1_970_000, **kw)
def bill():
    parts = lambda k: [[n, k*v] for n, v in dict(weights=16.06e9, adapter=168e6, gradients=168e6, optimizer=336e6,
        activations=2.7e9, logits=134e6, workspace=126e6, context=2.1e9).items()]
    rung = lambda words, saves, peak: dict(words=words, saves=saves, peak=peak,
        time="more: each pass unpacks the weights first", quality="none found <img src=x onerror=window.hit=1>",
        source="Dettmers and others 2023", fits=peak < 15e9)
    panel = Bill(sides=[dict(name="full fine-tuning", parts=parts(6), yours=False), dict(name="LoRA", parts=parts(1), yours=True), dict(name="QLoRA", parts=parts(.4), yours=False)], gpu="T4",
        rungs=[rung("gradient_checkpointing=True", 3e9, 18.8e9), rung("quant='nf4', bnb_4bit_use_double_quant=True", 10e9, 8.8e9)], verdict="It fits after 2 steps: 8.8 GB at the peak instead of 21.8 GB, in the 15.6 GB of the T4.",
        notes=[["measured · planned", "8.81 GB · 8.8 GB (−0.1 %)"], ["an epoch on the T4", "4 h 2 min to 13 h 50 min, 0.28 to 0.97 kWh at most (an estimate, nothing was measured)"]])
    panel.cards = [dict(name=n, usable=u*1e9, over=21.8e9 - u*1e9) for n,
        u in (("T4", 15.6), ("L4", 23.7), ("RTX 4090", 25.3), ("A100-40GB", 42.1), ("A100-80GB", 85), ("H200", 150))]
    return panel
def full():
    return [Quantize(model="meta-llama/Llama-3.1-8B-Instruct", params=8.03e9, layer="model.layers.31.mlp.down_proj", histogram=[0, .5, 1, .5, 0]), rank(), Columns(data="org/a-very-long-name-of-a-data-set", total=123456, format="nothing that is known", names=["id", "a_very_long_name_of_a_column", "c"], columns=dict(user="c"), examples=[["1", "W"*300, ""]], note="id and others are not used"), RowsPanel(total=123456, row=100000, place=99999, places=123456, tokens=HOSTILE*20, shares=SHARES, lengths=LENGTHS, reading="40 % of the tokens are learned, nothing is cut. In batches of 16, 27.1 % is padding."), FindingsPanel(findings=FINDINGS, looked=500, total=123456, acknowledged=["gone"]), Settings(total=51760, max_steps=123456), Code(), Flow(state="training", detail="step 123,456 of 200,000", items=[[k, "a long summary of it"] for k in "abcdefgh"], now=3), bill()]
def sent(page, i=0): return page.evaluate(f"models[{i}].sent")
def get(page, name, i=0): return page.evaluate(f"models[{i}].get('{name}')")
def as_python(page, cls, i=0): return cls(**{k: v for k, v in page.evaluate(f"models[{i}].state").items()})


def test_rank_doubles_by_keyboard_and_alpha_follows(show):
    page = show(rank())
    slider = page.get_by_role("slider", name="Rank r")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert sent(page) == [dict(r=32, lora_alpha=64)]
    for key, r in (("ArrowUp", 64), ("ArrowLeft", 32), ("Home", 1), ("ArrowDown", 1), ("End", 256)):
        page.keyboard.press(key)
        assert get(page, "r") == r and get(page, "lora_alpha") == 2*r
    page.wait_for_function("document.querySelector('input[type=range]').getAttribute('aria-valuetext') === 'r = 256'")


def test_rank_takes_other_whole_numbers(show):
    page = show(rank())
    box = page.get_by_role("textbox", name="Rank r")
    box.fill("12")
    assert get(page, "r") == 16, "nothing is committed before Enter"
    box.press("Enter")
    assert get(page, "r") == 12 and get(page, "lora_alpha") == 24
    page.get_by_role("slider", name="Rank r").press("ArrowRight")
    assert get(page, "r") == 16
    box.fill("eight")
    box.press("Enter")
    assert get(page, "r") == 16 and box.input_value() == "16"
    page.wait_for_function("document.querySelector('.error').textContent.includes('eight')")
    assert box.get_attribute("aria-invalid") == "true" and page.get_by_role("textbox",
        name="lora_alpha").get_attribute("aria-invalid") is None
    box.fill("7")
    box.press("Escape")
    assert box.input_value() == "16" and get(page, "r") == 16


def test_alpha_stays_when_it_does_not_follow(show):
    page = show(rank(keep_ratio=False))
    page.get_by_role("slider", name="Rank r").press("ArrowRight")
    assert get(page, "r") == 32 and get(page, "lora_alpha") == 32
    page.get_by_label("rsLoRA").check()
    page.wait_for_function("document.querySelector('.scale').textContent === 'α/√r = 5.66'")


def test_targets_toggle_and_one_stays(show):
    page = show(rank())
    for t in ("k", "o", "gate", "up", "down"): page.get_by_role("button", name=t, exact=True).click()
    assert get(page, "target_modules") == ["q_proj", "v_proj"]
    count = f"{as_python(page, Rank).trained():,}"
    page.wait_for_function(f"document.querySelector('.sum b').textContent.startsWith('{count}')")
    for t in ("q", "v"): page.get_by_role("button", name=t, exact=True).click()
    assert get(page, "target_modules") == ["v_proj"] and "stays on" in get(page, "message")
    for t in "q k o gate up down".split(): page.get_by_role("button", name=t, exact=True).click()
    assert get(page, "target_modules") == "all-linear" and get(page, "message") == ""


def test_a_pattern_for_targets_is_shown_as_none_and_kept(show):
    page = show(rank(target_modules=r".*\.(q|v)_proj"))
    assert page.locator("[aria-pressed=true]").count() == 0 and page.locator(".sum b").inner_text() == "–"
    page.get_by_role("slider", name="Rank r").press("ArrowRight")
    assert get(page, "target_modules") == r".*\.(q|v)_proj"


def test_quantize_switches_without_a_kernel(show):
    page = show(Quantize(choices={q: dict(c, bytes=int(2e6*c["bits"]/8), bytes_double=int(2e6*c["bits_double"]/8),
        error=.091) for q, c in Quantize().choices.items()}))
    assert page.locator(".level").count() == 16 and page.get_by_text("1.0 of 4.0 MB").count() == 1
    page.get_by_role("radio", name="nf4").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert get(page, "quant") == "int8"
    page.wait_for_function("document.querySelectorAll('.level').length === 0")
    assert page.get_by_label("double quantization").is_disabled() and page.get_by_text("8 bits a weight").count() == 1
    page.get_by_role("radio", name="fp4").check()
    page.get_by_label("double quantization").uncheck()
    assert get(page, "bnb_4bit_use_double_quant") is False
    page.wait_for_function("document.body.innerText.includes('4.5 bits a weight')")


def test_the_bill_lights_what_fits_and_its_ladder_is_buttons(show):
    page = show(bill(), width=1150)
    card = lambda name: page.get_by_role("button", name=name)
    assert card("T4, 15.6 GB usable: 6.2 GB short").get_attribute("aria-pressed") == "true" and "on" not in card("T4, 15.6").get_attribute("class").split()
    assert "on" in card("L4, 23.7 GB usable: fits").get_attribute("class").split()
    card("A100-40GB").focus()
    page.keyboard.press("Enter")
    assert sent(page) == [dict(gpu="A100-40GB")]
    page.wait_for_function("[...document.querySelectorAll('svg text.strong')].some(e => e.textContent === 'A100-40GB')")
    page.get_by_role("button", name="Change quant='nf4'").press("Space")
    assert sent(page)[-1] == dict(kind="take", step=1)
    box = page.get_by_role("combobox")
    box.fill("RTX 5090")
    box.press("Enter")
    assert get(page, "gpu") == "RTX 5090" and page.locator(".parts li").count() == 8 and "16.1 GB" in page.locator(".parts").inner_text()
    assert page.locator("svg rect").count() == 24 and page.evaluate("window.hit") is None


def test_a_name_is_committed_by_enter_or_leaving(show):
    page = show(Quantize(models=["petit", "org/model"]))
    box = page.get_by_role("combobox")
    assert page.locator("datalist option").count() == 2
    box.fill("org/mo")
    page.evaluate("models[0].set('params', 5)")
    page.wait_for_timeout(50)
    assert box.input_value() == "org/mo" and get(page,
        "model") == "petit", "a change from elsewhere does not write over what is being typed"
    box.blur()
    assert get(page, "model") == "org/mo"
    page.evaluate("models[0].set('message', 'There is no model org/mo')")
    page.wait_for_function("document.querySelector('[role=combobox], input[list]').getAttribute('aria-invalid') === "
        "'true'")


def test_two_panels_of_one_kind_do_not_share_radios(show):
    page = show(Quantize(), Quantize(quant="int8"))
    page.get_by_role("radio", name="none").first.check()
    assert page.get_by_role("radio", name="int8").nth(1).is_checked()


def test_hostile_text_stays_text(show):
    page = show(RowsPanel(total=2, tokens=HOSTILE, reading="<b>no</b>", message="<i>x</i>",
        lengths=dict(LENGTHS, label="<b>")), Columns(data="<img src=x onerror=window.hit=1>", names=["<b>x</b>"],
        examples=[["<script>window.hit=1</script>"]], roles=[["<b>", "<img src=x onerror=window.hit=1>"]],
        format="<b>", note="<b>"), FindingsPanel(findings=[dict(FINDINGS[0], code="<b>x</b>",
        remedy="<img src=x onerror=window.hit=1>")], looked=1, total=1, busy="<b>", message="<i>x</i>"),
        Quantize(model="<script>window.hit=1</script>", layer="<img src=x onerror=window.hit=1>"),
        Flow(items=[["<b>", "<img src=x onerror=window.hit=1>"]], state="<b>"),
        Code(python="<img src=x onerror=window.hit=1>"),
        Rank(targets=[dict(name="<b>x</b>", short="<img src=x onerror=window.hit=1>", m=2, n=2, count=1)]))
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None and page.locator("main img, main script, main .error i, main .chip b, "
        "main .remedy b, main .value script").count() == 0
    assert page.get_by_text("U+202E").count() == 1 and page.get_by_text("↵").count() == 1


def test_rows_turn_over(show):
    page = show(RowsPanel(total=3, places=3, place=1, row=2, tokens=HOSTILE))
    page.get_by_role("button", name="Next row").click()
    assert get(page, "place") == 2
    page.wait_for_function("document.querySelector('[aria-label=\"Next row\"]').disabled")
    page.locator(".tokens").focus()
    for _ in range(4): page.keyboard.press("ArrowLeft")
    assert get(page, "place") == 0
    box = page.get_by_role("textbox", name="Row, by its number")
    box.fill("3")
    box.press("Enter")
    assert sent(page)[-1] == dict(kind="row", row=3)
    box.fill("two")
    box.press("Enter")
    page.wait_for_function("document.querySelector('.error').textContent.includes('two')")
    page.get_by_label("Order of the rows").select_option("truncated")
    assert sent(page)[-1] == dict(order="truncated", message="")


def test_tokens_tell_their_id_and_position(show):
    page = show(RowsPanel(total=1, places=1, tokens=HOSTILE))
    detail = lambda: page.locator(".detail").inner_text()
    page.locator(".token").nth(3).hover()
    assert detail() == "position 3 · id 3 · learned"
    page.locator(".tokens").focus()
    page.mouse.move(0, 0)
    for _ in range(9): page.keyboard.press("ArrowDown")
    assert detail() == "position 8 · id 8 · special, cut off" and page.locator(".token.at").count() == 1
    page.keyboard.press("ArrowDown")
    assert "1,234 of them" in detail() and page.locator(".tokens .padding").inner_text().endswith("×1,234")


def test_the_histogram_of_the_page_is_that_of_the_still(show):
    bins = length_bins([3, 12, 25, 25, 38, 41, 80], 40, 12)
    page = show(RowsPanel(total=7, lengths=dict(bins, label=lengths_reading(bins))), width=446)
    still = lengths_svg(bins, width=page.evaluate("document.querySelector('.lengths svg').viewBox.baseVal.width"),
        height=78)
    bars = lambda at: [[float(b.get_attribute(k)) for k in ("x", "width")] for b in page.locator(f"rect.{at}").all()]
    there = [[float(v) for v in m] for m in re.findall(r'<rect x="([\d.]+)"[^>]* width="([\d.]+)"', still)]
    assert len(there) == 6 and all(abs(a - b) < .11 for x, y in zip(sorted(bars("kept") + bars("lost")), sorted(there))
        for a, b in zip(x, y))
    assert page.locator(".lengths svg").get_attribute("aria-label") == "7 rows of up to 80 tokens, 2 of them cut at 40." and page.locator(".limitword").text_content() == "cut at 40"


def test_columns_are_mapped_by_clicks(show):
    page = show(Columns(total=2, names=["id", "q", "hint", "a"], taken=dict(text="q"),
        examples=[["1", "Why?", "", "Because."], ["2", "Who?", "-", "Me."]]))
    for name, role in (("q", "user"), ("a", "assistant"), ("hint", "user")):
        page.get_by_label(f"What {name} is").select_option(role)
    assert get(page, "columns") == dict(user=["q", "hint"], assistant="a")
    page.get_by_label("What q is").select_option("")
    assert get(page, "columns") == dict(user="hint", assistant="a")
    page.wait_for_function("document.querySelectorAll('.col.used').length === 2")
    page.get_by_role("button", name="Next example").click()
    assert page.locator(".value").all_inner_texts() == ["2", "Who?", "-", "Me."]
    page.get_by_role("button", name="as recognized").click()
    assert get(page, "columns") == {}
    page.wait_for_function("document.querySelector('[aria-label=\"What q is\"]').value === 'text'")


def test_errors_wait_for_a_tick_and_rows_are_asked_for(show):
    page = show(FindingsPanel(findings=FINDINGS, looked=500, total=4000))
    state = lambda: page.locator(".state").inner_text()
    assert state() == "✗ 2 errors: Train waits"
    page.locator("[data-code='no-end']").get_by_role("checkbox").check()
    assert get(page, "acknowledged") == ["no-end"]
    page.wait_for_function("document.querySelector('.state').textContent === '✗ 1 error: Train waits'")
    page.locator("[data-code=gone]").get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.state').textContent === '1 warning'")
    assert page.evaluate("document.activeElement.closest('.finding').dataset.code") == "gone", "the focus stays where it was"
    page.locator("[data-code=gone]").get_by_role("checkbox").uncheck()
    assert get(page, "acknowledged") == ["no-end"]
    page.locator("[data-code=twice]").get_by_role("button", name="row 201").click()
    assert sent(page)[-1] == dict(kind="row", row=201)
    page.get_by_role("button", name="look at all").click()
    assert sent(page)[-1] == dict(kind="all")


def test_rows_of_a_right_to_left_language_flow_from_the_right(show):
    page = show(RowsPanel(tokens=[[w, "learned", 1] for w in "البقرة تحب البطة".split()], total=1))
    assert page.locator(".tokens").get_attribute("dir") == "rtl"


def test_settings_take_numbers_as_people_write_them(show):
    page = show(paced())
    page.get_by_role("textbox", name="Learning rate").fill("2e-4")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="steps").fill("1,000")
    page.keyboard.press("Tab")
    assert get(page, "learning_rate") == 2e-4 and get(page, "max_steps") == 1000
    page.wait_for_function("document.body.innerText.includes('1,000 steps × 32 rows = 32,000 rows, 8 passes over "
        "4,000')")
    page.get_by_role("slider").press("ArrowRight")
    assert 2e-4 < get(page, "learning_rate") < 2.4e-4
    page.get_by_role("textbox", name="steps").fill("")
    page.keyboard.press("Enter")
    assert get(page, "max_steps") == -1
    page.get_by_role("textbox", name="passes").fill("2.5")
    page.keyboard.press("Enter")
    page.get_by_label("Course of the learning rate").select_option("linear")
    page.wait_for_timeout(50)
    said = as_python(page, Settings)
    assert said.num_train_epochs == 2.5 and said.text().startswith(page.locator(".line").inner_text()) and said.steps() == 313


def test_steps_and_passes_give_way_to_each_other(show):
    page = show(paced())
    page.get_by_role("textbox", name="passes").fill("3")
    page.keyboard.press("Enter")
    assert sent(page) == [dict(num_train_epochs=3, max_steps=-1)]
    page.wait_for_function("document.querySelector('[data-trait=max_steps]').placeholder === '375'")


def test_a_value_that_arrives_under_a_selection_is_typed_over(show):
    page = show(paced())
    box = page.get_by_role("textbox", name="passes")
    for text in "", "7":
        box.fill(text)
        page.keyboard.press("Escape")
        box.select_text()
        receive(page, 0, max_steps=-1, num_train_epochs=3)
        page.wait_for_function("document.querySelector('[data-trait=num_train_epochs]').value === '3'")
        page.keyboard.type("2.5")
        page.keyboard.press("Enter")
        assert get(page, "num_train_epochs") == 2.5 and box.input_value() == "2.5"


def test_code_tabs_and_copy(show):
    page = show(Code(), RowsPanel())
    page.get_by_role("tab", name="python").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="yaml").get_attribute("aria-selected") == "true" and page.locator("pre").inner_text() == Recipe().to_yaml()
    page.get_by_role("button", name="copy").click()
    page.wait_for_function("document.querySelector('.said').textContent === 'copied'")
    page.evaluate("document.body.append(document.createElement('textarea'))")
    page.locator("textarea").focus()
    page.keyboard.press("Control+V")
    assert page.locator("textarea").input_value() == Recipe().to_yaml()


@pytest.mark.slow
def test_every_view_follows_and_a_closed_one_lets_go(show):
    for w in full():
        page = show(w)
        page.evaluate("""async ([esm, css]) => { const m = models[0], el = document.createElement("div"); document.querySelector("main").append(el);
            const panel = (await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})))).default; stops.push(panel.render({model: m, el})); }""", [w._esm, w._css])
        assert page.locator("main > div").nth(0).inner_text() == page.locator("main > div").nth(1).inner_text()
        page.evaluate("stops[1](); stops[0]()")
        assert page.evaluate("Object.values(models[0].handlers).every(h => h.length === 0)"), type(w).__name__


@pytest.mark.parametrize("width", [250, 282, 400, 560, 1180])
def test_nothing_runs_over_the_edge(show, width):
    page = show(*full(), width=width)
    page.wait_for_timeout(50)
    over = page.evaluate("""() => [...document.querySelectorAll(".lrb")].flatMap(card => { const edge = card.getBoundingClientRect().right + .5;
        return [...card.querySelectorAll("*")].filter(e => !e.closest(".tokens, pre, .hide, .cut, svg, .strip .v") && e.getBoundingClientRect().right > edge).map(e => card.className + " " + e.outerHTML.slice(0, 80)); })""")
    assert over == []


def test_nothing_jumps_when_numbers_change(show):
    page = show(*full())
    heights = lambda: page.evaluate("[...document.querySelectorAll('.lrb')].map(e => "
        "Math.round(e.getBoundingClientRect().height))")
    page.wait_for_timeout(50)
    before = heights()
    page.evaluate("""() => { const [q, r, m, d, doc, s, c, f] = models; q.set("quant", "none"); q.set("params", 1); r.set("r", 256); r.set("lora_alpha", 333.25); r.set("target_modules", ["down_proj"]); d.set("row", 0);
        d.set("tokens", [["a", "context", 1]]); d.set("shares", {}); d.set("lengths", {}); d.set("reading", ""); m.set("format", "chat"); m.set("note", ""); m.set("columns", {}); m.set("names", ["a"]); m.set("examples", [["x"]]);
        doc.set("findings", []); doc.set("looked", 123456); s.set("max_steps", 1); s.set("learning_rate", 1e-6); c.set("python", "x\\n".repeat(500)); f.set("detail", ""); f.set("items", models[7].get("items").map(([k]) => [k, ""])); }""")
    page.wait_for_timeout(80)
    assert heights() == before


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show, theme):
    page = show(*full(), theme=theme)
    low = page.evaluate("""() => { const rgb = c => { const m = c.match(/[\\d.]+/g).map(Number); if (c.startsWith("color(")) for (const i of [0, 1, 2]) m[i] *= 255; return m.length > 3 ? m : [...m, 1]; };
      const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > .9) return c; } return [255, 255, 255, 1]; };
      return [...document.querySelectorAll(".lrb *")].filter(e => !e.closest(":disabled, :has(> :disabled), .ws, .hide, title") && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => { const s = getComputedStyle(e), a = lum(rgb(e.namespaceURI.endsWith("svg") ? s.fill : s.color)), b = lum(ground(e));
        return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 90)]; }).filter(([c]) => c < 4.5); }""")
    assert low == []
