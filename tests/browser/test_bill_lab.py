"The Fit panel in a real JupyterLab: it follows the controls, its ladder edits the recipe, and a run writes its peak beside the plan."
import pathlib, time

import pytest

SHOTS = pathlib.Path(__file__).parents[2]/"shots"


def until(cond, timeout, what):
    end = time.time() + timeout
    while not cond():
        assert time.time() < end, what
        time.sleep(.1)


@pytest.mark.usefixtures("one_kernel")
@pytest.mark.slow
def test_the_bill_follows_and_its_ladder_edits(lab):
    nb = lab.notebook(["from loranb import Recipe, Studio",
        "studio = Studio(Recipe(max_steps=2, test_size=8, gradient_checkpointing=False))\nstudio"], size=(1180, 1500))
    try:
        nb.run(0), nb.run(1)
        bill, flow, code = (nb.page.locator(f".lrb.{n}") for n in ("bill", "flow", "code"))
        bill.wait_for(timeout=120_000)
        until(lambda: "at the peak" in bill.inner_text() and bill.locator("svg rect").count() > 9, 120,
            "there is no bill")
        nb.wait_idle(90)
        assert " of 15.6 GB" in flow.inner_text() and "It fits" in bill.inner_text()
        box = nb.page.locator("[data-trait=per_device_train_batch_size]")
        box.fill("2048"), box.press("Enter")
        until(lambda: bill.get_by_role("button", name="Change gradient_checkpointing=True").count() == 1, 60,
            "there is no ladder")
        assert "✗" in flow.inner_text() and "short" in bill.inner_text() or "short" in bill.locator(".after").inner_text()
        if lab.kernel == "installed":
            for theme in ("light", "dark"):
                nb.theme(theme)
                time.sleep(.8)
                nb.shot(SHOTS/f"bill-{theme}.png", ".lrb.bill")
        bill.get_by_role("button", name="Change").last.click()
        until(lambda: "gradient_checkpointing=True" in code.inner_text() and "It fits:" in bill.inner_text(), 60,
            "the ladder does not edit the recipe")
        bill.get_by_role("button", name="H200").click()
        until(lambda: "H200" in bill.locator(".read").inner_text(), 30, "another card is not asked")
        box.fill("4"), box.press("Enter")
        until(lambda: "per_device_train_batch_size=4" in code.inner_text(), 30, "the code does not follow")
        nb.wait_idle(60)
        nb.page.get_by_role("button", name="Train", exact=True).click()
        until(lambda: "measured · planned" in bill.inner_text(), 180, "the measured peak is not beside the plan")
        assert not nb.errors, nb.errors
    finally: nb.close()
