"Data in a real JupyterLab: map columns by clicks, see the mask follow, mend what the doctor blocks, and train. What strangers wrote stays text."
import json, pathlib, time

SHOTS = pathlib.Path(__file__).parents[2]/"shots"
SCRIPT = "<script>alert(1)</script>"
WRITE = f'''import json
from pathlib import Path
ASK = ["Translate to French: The cow is small.", "Translate to French: {SCRIPT}", "Translate to French: <img src=x onerror=alert(2)> The dog sleeps."]
rows = [dict(id=f"{{i}}-{SCRIPT}", theirs=ASK[i % 3] + f" {{i}}", ours=f"La vache est petite {{i}}. {SCRIPT}", **{{"<b>note</b>": "x"}}) for i in range(60)]
Path("faq.jsonl").write_text("\\n".join(map(json.dumps, rows)))'''
CELLS = [WRITE, '''from loranb import Recipe, Studio
studio = Studio(Recipe(data="faq.jsonl", max_length=24, max_steps=4, test_size=4, r=2, quant="none"))
studio''', '''from loranb import preview
preview(studio.recipe)''', '''Path("report.html").write_text(studio.run.report()); print(studio.run.state, studio.run.recipe.columns, studio.run.recipe.acknowledged)''', "studio.run"]


def until(cond, timeout, what):
    end = time.time() + timeout
    while not cond():
        assert time.time() < end, what() if callable(what) else what
        time.sleep(.1)


def test_from_a_strange_file_to_a_run(any_lab):
    nb = any_lab.notebook(CELLS, size=(1370, 2600))
    page, dialogs = nb.page, []
    page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    panel = lambda name: page.locator(f".lrb.{name}")
    text = lambda name: panel(name).inner_text()
    button = lambda name: page.get_by_role("button", name=name, exact=True)
    learned = lambda: "".join(t for t in page.evaluate("[...document.querySelectorAll('.lrb.rows .token')].filter(e => /learned/.test(e.className)).map(e => e.textContent)")).replace("·", " ").strip()
    try:
        nb.run(0), nb.run(1)
        panel("columns").wait_for(timeout=90_000)
        nb.wait_idle(60)

        # Columns of no known name: nothing is learned yet, the rows stand beside the choice, and Train says why it does not.
        assert "are not known as a format" in text("columns") and SCRIPT in text("columns") and page.locator(".lrb.rows .token").count() == 0
        button("Train").click()
        until(lambda: "are not known as a format" in text("monitor"), 30, lambda: text("monitor"))
        page.get_by_label("What theirs is").select_option("user")
        until(lambda: "It needs messages, or user and assistant" in text("columns"), 10, lambda: text("columns"))
        page.get_by_label("What ours is").select_option("assistant")
        until(lambda: learned().startswith("La"), 10, learned)
        assert "columns={'user': 'theirs', 'assistant': 'ours'}" in text("code")

        # The mask follows: the other way round the question is learned.
        page.get_by_label("What theirs is").select_option("")
        page.get_by_label("What ours is").select_option("user")
        page.get_by_label("What theirs is").select_option("assistant")
        until(lambda: learned().startswith("Trans"), 10, learned)
        page.get_by_label("What theirs is").select_option("")
        page.get_by_label("What ours is").select_option("assistant")
        page.get_by_label("What theirs is").select_option("user")
        until(lambda: learned().startswith("La"), 10, learned)

        # The cut takes the ends of the answers: the doctor blocks, a longer max_length mends it.
        assert "Train waits" in text("doctor") and "cut at 24" in text("rows")
        page.get_by_label("Order of the rows").select_option("truncated")
        until(lambda: page.locator(".lrb.rows .token.truncated").count() > 0, 10, "no cut token is shown")
        button("Train").click()
        until(lambda: "acknowledged" in text("monitor"), 30, lambda: text("monitor"))
        length = page.get_by_role("textbox", name="max length")
        length.fill("256")
        length.press("Enter")
        until(lambda: "cut off" not in page.locator(".lrb.rows .detail").inner_text() and page.locator(".lrb.rows .token.truncated").count() == 0, 10, "the tokens do not follow max_length")
        for theme in ("light", "dark"):
            nb.theme(theme)
            for width in (1180, 800):
                nb.size(width + 190, 2600)
                time.sleep(.6)
                nb.shot(SHOTS/f"data-{theme}-{width}.png", ".lrb-g3d")

        # What is left is acknowledged by a click, which the recipe keeps.
        for box in page.locator(".lrb.doctor .sev-error input").all(): box.check()
        until(lambda: "Train waits" not in text("doctor"), 10, lambda: text("doctor"))
        page.locator(".lrb.doctor .link").filter(has_text="row ").first.click()
        button("Train").click()
        until(lambda: "done" in text("monitor"), 120, lambda: text("monitor"))
        nb.run(2), nb.run(3), nb.run(4)
        nb.wait_output(3, "done {'user': 'theirs', 'assistant': 'ours'}", 60)
        nb.wait_idle(30)

        # What strangers wrote stayed text: in panels, preview, card, and in the report as a page of its own.
        assert SCRIPT in nb.output(2) and SCRIPT in text("samples")
        assert page.evaluate("document.querySelectorAll('.lrb script, .jp-OutputArea script, .lrb img, .jp-OutputArea img').length") == 0 and not dialogs
        report = page.context.new_page()
        report.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
        report.set_content((any_lab.folder/"report.html").read_text())
        report.wait_for_timeout(200)
        assert report.locator("script, img").count() == 0 and SCRIPT in report.inner_text("body") and not dialogs
        report.close()
        assert not nb.errors, nb.errors
    finally: nb.close()
