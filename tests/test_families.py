"""The whole loop on tiny random models: load, adapt, train three steps, spectra, save, reload, merge, generate.

A spread of families runs by default; `--slow` walks all of them in all quantizations and prints the table. What does not
pass is refused, and the reason given is one of those that were checked by hand.
"""
import gc

import pytest

from families import CLASSIFIERS, FAMILIES, build, load_by_cards, passed, recipe, walk

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
def test_classifiers(name, quant, tmp_path):
    stages = one(name, quant, tmp_path, "SEQ_CLS")
    assert held(name, quant, stages) is None
    off, = load_by_cards([stages["saved"]], tmp_path/"cases.json")
    assert off <= 1e-3, off


def table(rows):
    keys = ("quantized", "adapted", "loss", "trained", "proof", "spectra", "reloaded", "answers", "merged")
    show = lambda v: ("yes" if v else "NO") if isinstance(v, bool) else f"{v:.1g}" if isinstance(v, float) else str(v)
    lines = [f"{n:18s} {q:5s} " + (f"refused: {s['refused']}" if "refused" in s
        else " ".join(f"{k} {show(s.get(k, '-')):8s}" for k in keys)) for n, q, s in rows]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("task,names", [("CAUSAL_LM", FAMILIES), ("SEQ_CLS", CLASSIFIERS)], ids=["write", "classify"])
def test_the_table(task, names, tmp_path, capsys, matrix):
    "In CI each family in one quantization, in turn"
    rows, wrong = [], {}
    for i, name in enumerate(names):
        for quant in QUANTS if matrix else QUANTS[i % 3:][:1]:
            stages = one(name, quant, tmp_path/name, task)
            rows.append((name, quant, stages))
            if found := held(name, quant, stages): wrong[name, quant] = found
    saved = {(n, q): s["saved"] for n, q, s in rows if "saved" in s}
    strangers = dict(zip(saved, load_by_cards([*saved.values()], tmp_path/"cases.json")))
    wrong |= {k: f"by its card: {off}" for k, off in strangers.items() if isinstance(off, str) or not off <= 1e-3}
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


# Layers by their full names, in a run and in its plan

@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    "Gemma 3 with a tower for pictures that has as many layers as the part for text, and layers of the same short names"
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from loranb.models import petit
    from loranb.models.hub import load_tokenizer, quiet_libraries
    home, tok = tmp_path_factory.mktemp("towers"), load_tokenizer(petit.path())
    text = dict(FAMILIES["gemma3_text"], vocab_size=len(tok), num_hidden_layers=4, pad_token_id=tok.pad_token_id)
    with quiet_libraries():
        model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=dict(hidden_size=32,
            intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
            vision_use_head=False), mm_tokens_per_image=4, image_token_index=9, boi_token_index=8, eoi_token_index=7))
        model.save_pretrained(home); tok.save_pretrained(home)
    return home


def live_and_planned(r):
    from loranb.memory.plans import plan
    from loranb.models.loading import load_base
    from loranb.models.lora import adapted_modules, attach
    lora = attach(load_base(r)[0], r)
    return adapted_modules(lora), sum(p.numel() for p in lora.parameters() if p.requires_grad), plan(r).trained


@pytest.mark.parametrize("targets,n", [("all-linear", 4*7), (["q_proj", "v_proj"], 4*2),
    (["self_attn.q_proj", "up_proj"], 4*2), (r".*layers\.(0|2)\.self_attn\.q_proj", 2)])
def test_no_tower_is_adapted_and_the_plan_knows_it(towers, targets, n):
    names, live, planned = live_and_planned(recipe(towers, "none", target_modules=targets))
    assert live == planned and len(names) == n and all("language_model" in name for name in names)


def test_a_target_that_no_text_goes_through_is_refused(towers, tmp_path):
    from loranb.memory.plans import plan
    from loranb.models.loading import load_base
    from loranb.models.lora import attach
    from loranb.core.fields import RecipeError
    build("phimoe", tmp_path/"phimoe")
    for home, targets, named in ((towers, ["q_proj", "fc1"], "fc1"), (towers, r".*vision_tower.*q_proj", "vision_tower"),
            (tmp_path/"phimoe", ["q_proj", "router"], "router")):
        r = recipe(home, "none", target_modules=targets)
        for do in (lambda: attach(load_base(r)[0], r), lambda: plan(r).trained):
            with pytest.raises(RecipeError, match="cannot act on") as e: do()
            assert named in str(e.value) and "Leave it out" in str(e.value)


def test_the_outline_and_the_layers_are_those_of_the_text(towers):
    from loranb.memory.gpus import work_per_token
    from loranb.memory.rehearsal import find_layers
    from loranb.models.shapes import find_config, layer_outline, skeleton
    r = recipe(towers, "none")
    shown = {t["name"]: t for t in layer_outline(r)["targets"]}
    assert len(shown) == 7 and all(t["count"] == 4 for t in shown.values()) and shown["q_proj"]["n"] == 64
    layers, owner = find_layers(skeleton(find_config(r)))
    assert type(owner).__name__ == "Gemma3TextModel" and len(layers) == 4
    linear, head = sum(t["m"]*t["n"]*t["count"] for t in shown.values()), 64*find_config(r).text_config.vocab_size
    attention = 2*4*4*16*r.max_length*3.5
    assert work_per_token(r)[0] == 4*linear + 6*head + attention


@pytest.mark.parametrize("name", ["phimoe", "jamba", "llama4_text", "mamba", "gpt_oss", "deepseek_v3"])
def test_the_plan_counts_the_adapters_of_a_run(name, tmp_path):
    build(name, tmp_path)
    names, live, planned = live_and_planned(recipe(tmp_path, "none"))
    assert live == planned and names


@pytest.mark.parametrize("changes", [dict(target_modules=r"model\.layers\.[1-3]\..*_proj"),
    dict(exclude_modules=["layers.2.mlp.up_proj"]), dict(rank_pattern={r"layers\.1\.self_attn\.q_proj": 2})])
def test_the_plan_counts_layers_that_are_named_by_their_numbers(changes, tmp_path):
    build("llama", tmp_path, num_hidden_layers=5)
    _, live, planned = live_and_planned(recipe(tmp_path, "none", **changes))
    assert live == planned


def test_an_expert_to_which_no_token_is_sent_stays_a_target():
    import torch
    from loranb.models.loading import unusable_layers
    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = torch.nn.ModuleList([torch.nn.ModuleDict(dict(up=torch.nn.Linear(4, 4))) for _ in range(4)])
            self.tower, self.device = torch.nn.ModuleDict(dict(up=torch.nn.Linear(4, 4))), torch.device("cpu")
        def forward(self, input_ids, attention_mask): return self.experts[2]["up"](torch.ones(4))
    assert unusable_layers(Experts()) == ["tower.up"]
