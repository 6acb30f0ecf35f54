"""The whole loop on tiny random models: load, adapt, train three steps, spectra, save, reload, merge, generate.

A spread of families runs by default; `--slow` walks all of them in all quantizations and prints the table. What does not
pass is refused, and the reason given is one of those that were checked by hand.
"""
import gc, shutil

import pytest

from families import CLASSIFIERS, FAMILIES, build, passed, recipe, walk

SPREAD = dict(llama="nf4", gpt2="int8", gemma3_text="nf4", gpt_bigcode="none", falcon="nf4", mixtral="nf4",
    phimoe="none", mamba2="none", deepseek_v3="int8")
REFUSED = {("falcon", "int8"): "FalconLinear", ("falcon", "nf4"): "FalconLinear",
    ("rwkv", "int8"): "rescales its weights", ("rwkv", "nf4"): "rescales its weights",
    ("mamba", "int8"): "its forward pass fails", ("mamba", "nf4"): "its forward pass fails",
    ("deepseek_v2", "int8"): "its forward pass fails", ("deepseek_v3", "int8"): "its forward pass fails",
    ("minicpm3", "int8"): "its forward pass fails"}
QUANTS = ("none", "int8", "nf4")


@pytest.fixture(scope="module", autouse=True)
def frozen():
    gc.collect(); gc.freeze()
    yield
    gc.unfreeze()


def one(name, quant, folder, task="CAUSAL_LM", **changes):
    if not (folder/"model").exists(): build(name, folder/"model", task)
    return walk(recipe(folder/"model", quant, task, **changes), folder/quant)


def held(name, quant, stages):
    "None where a row of the table is as it must be, else what is wrong with it"
    if (name, quant) in REFUSED:
        return None if REFUSED[name, quant] in stages.get("refused", "") else f"should have been refused: {stages}"
    if not passed(stages): return str(stages)
    if quant == "none" and stages["merged"] > 1e-4:
        return f"merging into full precision moved logits by {stages['merged']:.2g}"
    if quant != "none" and not 0 < stages["quantized"]: return "nothing is quantized"


@pytest.mark.parametrize("name", SPREAD)
def test_a_spread_of_families(name, tmp_path):
    assert held(name, SPREAD[name], one(name, SPREAD[name], tmp_path)) is None


@pytest.mark.parametrize("name,quant", [("llama", "nf4"), ("bert", "none")])
def test_classifiers(name, quant, tmp_path): assert held(name, quant, one(name, quant, tmp_path, "SEQ_CLS")) is None


def table(rows):
    keys = ("quantized", "adapted", "loss", "trained", "proof", "spectra", "reloaded", "answers", "merged")
    show = lambda v: ("yes" if v else "NO") if isinstance(v, bool) else f"{v:.1g}" if isinstance(v, float) else str(v)
    lines = [f"{n:18s} {q:5s} " + (f"refused: {s['refused']}" if "refused" in s
        else " ".join(f"{k} {show(s.get(k, '-')):8s}" for k in keys)) for n, q, s in rows]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("task,names", [("CAUSAL_LM", FAMILIES), ("SEQ_CLS", CLASSIFIERS)], ids=["write", "classify"])
def test_the_table(task, names, tmp_path, capsys):
    rows, wrong = [], {}
    for name in names:
        for quant in QUANTS:
            stages = one(name, quant, tmp_path, task)
            rows.append((name, quant, stages))
            if found := held(name, quant, stages): wrong[name, quant] = found
        shutil.rmtree(tmp_path); tmp_path.mkdir()
    with capsys.disabled(): print(f"\n{task}: {len(names)} families\n{table(rows)}")
    assert not wrong, wrong
    assert task != "CAUSAL_LM" or len(names) >= 45


def test_experts_by_target_parameters(tmp_path):
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    stages = one("gpt_oss", "nf4", tmp_path, target_parameters=targets)
    # two layers with four linear maps, and four experts with two matrices
    assert passed(stages) and stages["spectra"] == 8 + 2*2*4


@pytest.mark.parametrize("changes,words", [(dict(lora_dropout=.1), "lora_dropout: the experts"),
    (dict(use_dora=True), "use_dora: the experts")])
def test_what_experts_do_not_take(changes, words, tmp_path):
    stages = one("mixtral", "none", tmp_path, **changes)
    assert words in stages["refused"] and "target_modules=['q_proj'" in stages["refused"]
    named = walk(recipe(tmp_path/"model", "none", target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], **changes),
        tmp_path/"named")
    assert passed(named)


def test_unquantized_experts_are_told(tmp_path):
    from loranb.models.quantization import kept_whole
    from loranb.models.loading import load_base
    build("mixtral", tmp_path/"model")
    said = []
    model, _ = load_base(recipe(tmp_path/"model", "nf4"), said.append)
    n = sum(p.numel() for k, p in model.named_parameters() if "experts" in k)
    assert kept_whole(model)["MixtralExperts"] == n and any("weights stay at full precision (Mixtral" in s
        for s in said)


def test_layers_that_an_adapter_cannot_act_on(tmp_path):
    from loranb.models.loading import load_base
    from loranb.models.lora import adapted_modules, attach
    for name, skipped in (("jamba", "dt_proj"), ("llama4_text", "router"), ("mamba", "out_proj")):
        build(name, tmp_path/name)
        lora = attach(load_base(recipe(tmp_path/name, "none"))[0], recipe(tmp_path/name, "none"))
        assert not [n for n in adapted_modules(lora) if n.endswith(skipped)] and adapted_modules(lora)
    own = recipe(tmp_path/"jamba", "none", exclude_modules=r".*\.(q|k)_proj")
    assert not [n for n in adapted_modules(attach(load_base(own)[0], own))
        if n.endswith(("q_proj", "k_proj", "dt_proj"))]
