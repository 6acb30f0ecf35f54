"Data in a real JupyterLab: map columns by clicks, see the mask follow, mend what the doctor blocks, and train. What strangers wrote stays text."
import json, pathlib, time

import pytest

SHOTS = pathlib.Path(__file__).parents[2]/"shots"
SCRIPT = "<script>alert(1)</script>"
WRITE = f'''import json
from pathlib import Path
ASK = ["Translate to French: The cow is small.", "Translate to French: {SCRIPT}", "Translate to French: <img src=x onerror=alert(2)> The dog sleeps."]
rows = [dict(id=f"{{i}}-{SCRIPT}", theirs=ASK[i % 3] + f" {{i}}", ours=f"La vache est petite {{i}}." + " {SCRIPT}"*(i > 0), **{{"<b>note</b>": "x"}}) for i in range(60)]
rows.insert(7, dict(id="null", theirs=None, ours="Rien."))
Path("faq.jsonl").write_text("\\n".join(map(json.dumps, rows)))'''
CELLS = [WRITE, '''from loranb import Recipe, Studio
studio = Studio(Recipe(data="faq.jsonl", max_length=24, max_steps=4, test_size=4, r=2, quant="none"))
studio''', '''from loranb import preview
preview(studio.recipe)''', '''studio.run.report("report.html"); print(studio.run.state, studio.run.recipe.columns, studio.run.recipe.acknowledged)''', "studio.run"]


def until(cond, timeout, what):
    end = time.time() + timeout
    while not cond():
        assert time.time() < end, what() if callable(what) else what
        time.sleep(.1)


@pytest.mark.slow
def test_from_a_strange_file_to_a_run(any_lab):
    nb = any_lab.notebook(CELLS, size=(1370, 2600))
    page, dialogs = nb.page, []
    page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    panel = lambda name: page.locator(f".lrb.{name}")
    text = lambda name: panel(name).inner_text()
    button = lambda name: page.get_by_role("button", name=name, exact=True)
    learned = lambda: "".join(t for t in page.evaluate("[...document.querySelectorAll('.lrb.rows .tokens "
        ".token')].filter(e => /learned/.test(e.className)).map(e => e.textContent)")).replace("·", " ").strip()
    try:
        nb.run(0), nb.run(1)
        panel("columns").wait_for(timeout=90_000)
        nb.wait_idle(60)

        # Columns of no known name: nothing is learned yet, the rows stand beside the choice, and Train says why it does not.
        assert "are not known as a format" in text("columns") and SCRIPT in text("columns") and page.locator(".lrb.rows .tokens .token").count() == 0
        button("Train").click()
        until(lambda: "are not known as a format" in text("monitor"), 30, lambda: text("monitor"))
        page.get_by_label("What theirs is").select_option("user")
        until(lambda: "It needs messages, or user and assistant" in text("columns"), 20, lambda: text("columns"))
        page.get_by_label("What ours is").select_option("assistant")
        until(lambda: learned().startswith("La"), 20, learned)
        until(lambda: "columns={'user': 'theirs', 'assistant': 'ours'}" in text("code"), 20, lambda: text("code"))

        # The mask follows: the other way round the question is learned.
        page.get_by_label("What theirs is").select_option("")
        page.get_by_label("What ours is").select_option("user")
        page.get_by_label("What theirs is").select_option("assistant")
        until(lambda: learned().startswith("Trans"), 20, learned)
        page.get_by_label("What theirs is").select_option("")
        page.get_by_label("What ours is").select_option("assistant")
        page.get_by_label("What theirs is").select_option("user")
        until(lambda: learned().startswith("La"), 20, learned)

        # A row that cannot be read: the doctor blocks until a click acknowledges it, which the recipe keeps.
        until(lambda: "3 errors: Train waits" in text("doctor"), 20, lambda: text("doctor"))
        button("Train").click()
        until(lambda: "row 8 (line 8): user (column 'theirs') is empty (null)" in text("monitor"), 60,
            lambda: text("monitor"))
        until(lambda: page.locator(".lrb.monitor").get_attribute("data-state") == "ready", 20,
            "what has not begun has not failed")
        page.locator(".lrb.doctor [data-code='bad-rows'] input").check()
        until(lambda: "2 errors: Train waits" in text("doctor") and "acknowledged=['bad-rows']" in text("code"), 20,
            lambda: text("doctor"))

        # The cut takes the ends of the answers: the doctor blocks, shows the rows, and a longer max_length mends it.
        assert page.locator(".limitword").text_content() == "cut at 24"
        page.get_by_label("Order of the rows").select_option("truncated")
        until(lambda: page.locator(".lrb.rows .tokens .token.truncated").count() > 0, 20, "no cut token is shown")
        page.locator(".lrb.doctor [data-code='answer-cut'] .link").first.click()
        until(lambda: page.get_by_label("Order of the rows").input_value() == "", 20,
            "a click on a row does not go there")
        button("Train").click()
        until(lambda: "To start all the same: acknowledged=" in text("monitor"), 60, lambda: text("monitor"))
        for theme in ("light", "dark"):
            nb.theme(theme)
            for width in (1180, 800):
                nb.size(width + 190, 2600)
                time.sleep(.6)
                nb.shot(SHOTS/f"data-{theme}-{width}.png", ".lrb-g3d")

        length = page.get_by_role("textbox", name="max length")
        length.fill("256")
        length.press("Enter")
        until(lambda: page.locator(".lrb.rows .tokens .token.truncated").count() == 0
            and "nothing is cut" in text("rows"), 20, "the tokens do not follow max_length")
        until(lambda: "Train waits" not in text("doctor"), 20, lambda: text("doctor"))
        button("Train").click()
        until(lambda: "done" in text("monitor"), 120, lambda: text("monitor"))
        nb.run(2), nb.run(3), nb.run(4)
        nb.wait_output(3, "done {'user': 'theirs', 'assistant': 'ours'} ['bad-rows']", 60)
        nb.wait_idle(30)

        # What strangers wrote stayed text: in panels, preview, card, and in the report as a page of its own.
        assert SCRIPT in "".join(nb.cell(2).locator(".jp-OutputArea").text_content().split()) and SCRIPT in text("samples")
        assert page.evaluate("document.querySelectorAll('.lrb script, .jp-OutputArea script, .lrb img, "
            ".jp-OutputArea img').length") == 0 and not dialogs
        report = any_lab.browser.new_page()
        report.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
        report.set_content((any_lab.folder/"report.html").read_text())
        report.wait_for_timeout(200)
        assert report.locator("script, img").count() == 0 and SCRIPT in report.inner_text("body") and not dialogs
        report.close()
        assert not nb.errors, nb.errors
    finally: nb.close()
