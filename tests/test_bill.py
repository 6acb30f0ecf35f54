"The Fit panel and the Studio around it: what it shows, what a step of the ladder does, what a mistake says."
import re
from types import SimpleNamespace

import pytest

from loranb.memory.bill import COLOURS
from loranb.memory.gpus import find_gpu
from loranb.core.recipe import Recipe
from loranb.widgets.studio import Studio
from loranb.widgets.choose.bill import Bill
from loranb.core.texts import asset_text


@pytest.fixture(autouse=True)
# the browser of earlier tests leaves an event loop
def at_once(monkeypatch): monkeypatch.setattr("loranb.widgets.studio.debounced", lambda fn: fn())


def test_it_starts_empty_and_shows_any_plan():
    panel = Bill()
    assert panel.text() == "Fit: nothing is planned yet." and panel.still() == ""
    plan = lambda gb: SimpleNamespace(parts={k: gb*1e9/9 for k in COLOURS}, peak=gb*1e9)
    panel.show(plan(18), [("<b>other</b>", plan(40))], name="LoRA", notes=[("measured", "17 GB")])
    assert [o["yours"] for o in panel.sides] == [False, True] and [g["name"] for g in panel.cards
        if g["over"] <= 0] == ["L4", "RTX 4090", "A100-40GB", "A100-80GB", "H200"]
    assert "18 GB at the peak" in panel.text() and "Fits L4" in panel.text() and "does not fit" in panel.verdict
    assert "<b>" not in panel.still() and "&lt;b&gt;" in panel.still() and panel.notes == [["measured", "17 GB"]]
    panel.gpu = "RTX 5090"
    panel.show(plan(18))
    assert panel.cards[-1] == dict(name="RTX 5090", usable=find_gpu("RTX 5090").usable,
        over=18e9 - find_gpu("RTX 5090").usable) and "It fits" in panel.verdict


def test_the_panel_has_the_colours_of_the_pictures():
    assert dict(re.findall(r"\.p-(\w+) { fill: (#\w+); background: \2; }", asset_text("js/bill.css"))) == COLOURS


def test_the_bill_follows_the_recipe_and_a_step_of_the_ladder_edits_it():
    studio = Studio(Recipe(max_steps=3, gradient_checkpointing=False))
    bill, peak = studio.bill, lambda: sum(v for o in studio.bill.sides if o["yours"] for _, v in o["parts"])
    assert bill.gpu == "T4" and bill.verdict.startswith("It fits") and not bill.rungs and " of 15.6 GB" in studio.flow.text()
    assert sorted(o["name"] for o in bill.sides) == ["LoRA", "QLoRA", "full fine-tuning"]
    small = peak()
    studio.settings.per_device_train_batch_size = 2048
    assert peak() > 10*small and bill.verdict.startswith("It fits after") and bill.rungs[0]["words"] == "gradient_checkpointing=True" and "✗" in studio.flow.text()
    bill.set_state({}); bill._handle_custom_msg(dict(kind="take", step=len(bill.rungs) - 1), [])
    r = studio.recipe
    assert r.gradient_checkpointing and r.per_device_train_batch_size*r.gradient_accumulation_steps == 2048 and studio.settings.per_device_train_batch_size == r.per_device_train_batch_size
    assert bill.verdict.startswith("It fits:") and not bill.rungs
    for bad in (-1, 99, "x", None): studio.climb(bad)
    assert studio.recipe == r
    bill.gpu = "banana"
    assert bill.gpu == "T4" and "'banana' is not in the table" in bill.message
    bill.gpu = "H100"
    assert "H100" in bill.verdict and not bill.message


def test_a_model_of_the_table_is_planned_without_its_files():
    studio = Studio(Recipe(max_steps=3))
    studio.edit(model="meta-llama/Llama-3.1-8B")
    assert studio.rank.params == 8030261248 and len(studio.rank.targets) == 7 and studio.quantize.histogram == [] and "frozen base 3.6 of 14.0 GB" in studio.quantize.text()
    assert 5e9 < sum(v for o in studio.bill.sides if o["yours"] for _, v in o["parts"]) < 12e9
