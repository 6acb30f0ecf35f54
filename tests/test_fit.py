"The cards, the ladder and the choice: what must hold whatever the plan says, and what it says of models that everybody knows."
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from loranb import cli
from loranb.memory.choices import choose
from loranb.memory.gpus import GPU, Estimate, find_gpu, gpu_table, this_gpu, estimate_time, work_per_token
from loranb.memory.ladder import LEVERS, climb
from loranb.memory.plans import plan
from loranb.core.fields import RecipeError
from loranb.core.kinds import QUANTS
from loranb.core.recipe import OPTIMS
from loranb.core.recipe import Recipe

LLAMA = Recipe(model="meta-llama/Llama-3.1-8B", quant="none", max_length=2048)


def test_every_card_of_the_table():
    for name in "T4 P100 L4 A10 A100-40GB A100-80GB H100 H200".split() + ["RTX 3060", "RTX 4090", "RTX 5090",
            "RTX 6000 Turing", "RTX 6000 Ada", "RTX 6000 Blackwell", "Apple 16 GB"]:
        assert find_gpu(name).name == name
    for g in gpu_table().values():
        assert .5 < g.usable/(g.memory*2**30) < 1, g
        assert not g.tflops or g.capability >= (6,
            0) and 10 < g.tflops < 2500 and 200 < g.bandwidth <= 8000 and 50 < g.watts <= 1000, g
    assert {g.memory for g in gpu_table().values()} >= {8, 12, 16, 24, 32, 40, 48, 80, 96, 141}
    assert find_gpu("NVIDIA GeForce RTX 4090") == find_gpu("4090") == find_gpu("rtx4090")
    for bad, words in (("A100", "Say which"), ("", "not in the table"), ("banana", "Names are such as")):
        with pytest.raises(RecipeError, match=words): find_gpu(bad)


def test_the_card_that_is_here(monkeypatch):
    import torch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for name, total, cap, known in (("NVIDIA A100-SXM4-80GB", 79.25, (8, 0), "A100-80GB"),
            ("Tesla T4", 14.74, (7, 5), "T4"), ("NVIDIA Unheard Of", 50., (12, 0), None),
            ("NVIDIA H100 80GB HBM3", 79.1, (9, 0), "H100"), ("NVIDIA H100 PCIe", 79.1, (9, 0), "H100-PCIe"),
            ("NVIDIA GeForce RTX 4060 Laptop GPU", 7.6, (8, 9), None), ("NVIDIA H20", 95., (9, 0), None),
            ("NVIDIA GeForce RTX 4070 SUPER", 11.6, (8, 9), "RTX 4070 Super")):
        monkeypatch.setattr(torch.cuda, "get_device_properties",
            lambda i: SimpleNamespace(name=name, total_memory=int(total*2**30), major=cap[0], minor=cap[1]))
        g = this_gpu()
        assert g.usable == int(total*2**30) and g.capability == cap and g.tflops == (gpu_table()[known].tflops if known
            else None)
        assert find_gpu(g.name).memory == g.memory and find_gpu(g).usable == g.usable, "the Studio asks by its name"


def test_every_card_and_size_by_its_name():
    for g in gpu_table().values(): assert find_gpu(g.name) == find_gpu(f" {g.name.lower()} ") == find_gpu(g)
    assert find_gpu("24GB") == find_gpu("24 gb") == find_gpu("24 GiB") == find_gpu("24G")
    assert find_gpu(find_gpu("20GB").name) == find_gpu("20GB")
    assert find_gpu("80GB").usable == find_gpu("H100").usable


NEAR = {"A4": "A40", "H100 64GB": "'H100' (80 GB)", "A100-64GB": "A100-80GB", "RTX 3060 8GB": "'RTX 3060' (12 GB)",
    "RTX 2080": "RTX 2080 Ti", "RTX 4060 Ti 8GB": "'RTX 4060 Ti' (16 GB)", "RTX 3070 Laptop": "RTX 3070",
    "RTX 4090 D": "RTX 4090", "4070 Ti Super 12GB": "RTX 4070 Ti Super", "NVIDIA A100-SXM4-40GB MIG 1g.5gb": "A100",
    "Apple 20 GB": "Apple 18 GB", "L": "L4", "L4 L4": "L4", "GB": "Names are such as", "0GB": "Names are such as",
    "24GB 48GB": "Names are such as", "RTX": "Say which", "RTX 6000": "RTX 6000 Ada", "V100": "V100-32GB",
    "Apple": "Apple 16 GB", "GH200 480GB": "H200", "24": "Names are such as"}

@pytest.mark.parametrize("name", NEAR)
def test_a_part_of_a_name_is_no_name(name):
    with pytest.raises(RecipeError) as e: find_gpu(name)
    assert repr(name) in str(e.value) and NEAR[name] in str(e.value) and len(str(e.value)) < 400


def test_pace_is_a_range_until_steps_are_measured():
    guess = estimate_time(LLAMA, "L4", 10**6)
    assert 2 < guess.seconds[1]/guess.seconds[0] < 8 and "estimate" in str(guess) and guess.kwh[1] == guess.seconds[1]*72/3.6e6
    steps = [(1000, s) for s in (1., 1.1, 1.2, 1.3)]
    known = estimate_time(LLAMA, "L4", 10**6, steps)
    assert known.measured == 4 and known.seconds == (pytest.approx(1050),
        pytest.approx(1250)) and "4 measured steps" in str(known)
    assert estimate_time(LLAMA, "L4", 10**6, steps[:3]).measured == 0
    with pytest.raises(RecipeError, match="nothing is known of the speed"): estimate_time(LLAMA, "Apple 16 GB", 10**6)
    flops, read = work_per_token(LLAMA.replace(gradient_checkpointing=False))
    assert work_per_token(LLAMA.replace(gradient_checkpointing=False), full=True)[0] == pytest.approx(flops*1.5, rel=.1)
    moe = Recipe(model="Qwen/Qwen3-30B-A3B", quant="none", gradient_checkpointing=False)
    assert 4*2.2e9 < work_per_token(moe)[0] < 4*5e9, "a token goes through 3 of 30 billion parameters"
    assert Estimate((1, 2)).kwh is None


def pencil(recipe, gpu=None):
    "A plan that is quick to make, for laws that hold for any plan"
    tokens = recipe.per_device_train_batch_size*recipe.max_length
    targets = 7 if recipe.target_modules == "all-linear" else len(recipe.target_modules)
    bytes_ = {"none": 16, "int8": 8}.get(recipe.quant, 4.5 - .4*recipe.bnb_4bit_use_double_quant)*1e9 + tokens*(2e5
        if recipe.gradient_checkpointing else 2e6) + targets*recipe.r*1e6*(4 if "8bit" in recipe.optim else 10)
    return SimpleNamespace(peak=round(bytes_))


@given(st.sampled_from(list(QUANTS)), st.integers(1, 24), st.integers(1, 9), st.sampled_from([256, 1000, 8192]),
    st.booleans(), st.sampled_from(OPTIMS), st.integers(1, 128), st.floats(1, 60))
@settings(max_examples=60, deadline=None)
def test_laws_of_the_ladder(quant, b, a, length, checkpointing, optim, r, gb):
    recipe = Recipe(quant=quant, per_device_train_batch_size=b, gradient_accumulation_steps=a, max_length=length,
        gradient_checkpointing=checkpointing, optim=optim, r=r)
    card = GPU("card", gb, int(gb*1e9))
    ladder = climb(recipe, card, pencil)
    assert ladder.recipe.per_device_train_batch_size*ladder.recipe.gradient_accumulation_steps == a*b, "the effective batch is never changed"
    assert ladder.recipe.lora_alpha/ladder.recipe.r == pytest.approx(recipe.lora_alpha/recipe.r)
    assert ladder.before == pencil(recipe).peak and ladder.fits == (pencil(ladder.recipe).peak <= card.usable)
    if ladder.before <= card.usable: assert not ladder.rungs
    peak = ladder.before
    for rung in ladder.rungs:
        assert rung.saves > 0 and rung.before == peak and rung.peak == pencil(rung.recipe).peak and rung.lever.time and rung.lever.quality and rung.lever.source
        peak = rung.peak
    if not ladder.fits:
        assert not any((c := lever.change(ladder.recipe)) and pencil(ladder.recipe.replace(**c)).peak < peak
            for lever in LEVERS), "something was left to give"
    for i in range(len(ladder.rungs) - 1 if ladder.fits else 0):
        without = recipe
        for j, rung in enumerate(ladder.rungs):
            if j != i: without = without.replace(**rung.lever.change(without))
        assert pencil(without).peak > card.usable, f"{ladder.rungs[i]} was given up for nothing"
    assert ladder.verdict in repr(ladder) and "<table" in ladder._repr_html_() or not ladder.rungs


def test_the_ladder_of_an_8b_on_a_t4():
    ladder = climb(LLAMA, "T4", plan)
    assert ladder.fits and ladder.before > 16e9 and [r.lever.name for r in ladder.rungs][-1] == "4-bit base"
    assert plan(LLAMA, "T4").fits("T4") is False and plan(ladder.recipe, "T4").fits("T4") is True
    assert plan(LLAMA, "T4").fit("T4").recipe == ladder.recipe
    assert climb(ladder.recipe, "T4", plan).rungs == []


def test_what_fits_no_card_says_so():
    ladder = climb(Recipe(quant="none", r=64), GPU("T4", 4, 4*10**9), pencil)
    assert not ladder.fits and "does not fit" in ladder.verdict and "would hold it" in ladder.verdict
    huge = climb(Recipe(quant="nf4"), "T4", lambda r, g=None: SimpleNamespace(peak=10**13))
    assert "No single card in the table holds it" in huge.verdict and not huge.rungs


@pytest.mark.parametrize("model,card,way",
    [("meta-llama/Llama-3.1-8B", "T4", "QLoRA"), ("Qwen/Qwen2.5-0.5B", "T4", "LoRA"),
    *(pytest.param(*o, marks=pytest.mark.slow) for o in (("meta-llama/Llama-3.1-8B", "H100", "LoRA"),
    ("meta-llama/Llama-3.3-70B-Instruct", "RTX 4090", "")))])
def test_choices(model, card, way):
    c = choose(model, card)
    assert c.way == way and c.ladder.fits == bool(way) and f"on the {card}" in repr(c) and "<table" in c._repr_html_()
    assert c.plans["full fine-tuning"].peak > c.plans["LoRA"].peak > c.plans["QLoRA"].peak
    assert (c.recipe.quant == "nf4") == (way != "LoRA")
    assert "Full fine-tuning would need" in repr(c) and "LoRA needs" in repr(c)


def test_the_command_plans_in_text_and_in_a_last_line_of_json(tmp_path, capsys):
    path = tmp_path/"recipe.yaml"
    LLAMA.to_yaml(path)
    assert cli.main(["plan", str(path), "--gpu", "T4"]) is None
    lines = capsys.readouterr().out.strip().splitlines()
    d = json.loads(lines[-1])
    assert len(lines) > 3 and not d["fits"] and d["fits_then"] and d["changes"]["quant"] == "nf4" and d["peak"] > d["usable"] > d["peak_then"]
    assert set(d["parts"]) >= {"weights", "constants", "adapter", "gradients", "optimizer", "activations", "logits",
        "workspace", "context"}
    assert cli.main(["plan", str(path), "--gpu", "T5"]) == 2 and "Did you mean 'T4'" in capsys.readouterr().err
    assert cli.main(["plan", str(path)]) is None and json.loads(capsys.readouterr().out.strip().splitlines()[-1])["peak"] > 16e9
