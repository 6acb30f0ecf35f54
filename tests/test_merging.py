"What is merged is what was trained, as the base is stored; and what cannot be is not half-written"
import json, sys
from pathlib import Path

import pytest, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from loranb import Adapter, plan
from loranb.core.fields import RecipeError
from loranb.core.places import read_recipe, with_absolute_names
from loranb.core.recipe import Recipe
from loranb.memory.plans import three_ways
from loranb.models.hub import quiet_libraries
from loranb.models.loading import load_base

sys.path.insert(0, str(Path(__file__).parent/"cases"))
from small import adapter, change_config, chat, llama, refusal, tokenizer, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")
CHATS = [chat(f"say {w} {i}", w) for i, w in enumerate(("one", "two", "four", "blue")*5)]
IDS = torch.arange(20, 60)[None]


def based(folder, **changes):
    model = llama(folder, **changes)
    tokenizer(folder)
    return model, Recipe(model=str(folder), data=write_rows(folder/"d.jsonl", CHATS), quant="none", r=4, max_length=64)


def loaded(path):
    with quiet_libraries(): return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model): return model(IDS).logits


@pytest.mark.parametrize("more", [dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]), dict(target_modules=["lm_head", "embed_tokens"]),
    dict(target_modules=["q_proj"], trainable_token_indices=[25, 26])], ids=str)
def test_what_was_tied_is_as_it_was_trained(more, tmp_path):
    _, recipe = based(tmp_path/"base", tie_word_embeddings=True)
    lora = adapter(loaded(tmp_path/"base"), tmp_path/"a", noise=.1, **more)
    for n, p in lora.named_parameters():
        if "modules_to_save" in n or "trainable_tokens_delta" in n: p.data += torch.randn_like(p)/10
    with quiet_libraries(): lora.save_pretrained(tmp_path/"a")
    right = logits(PeftModel.from_pretrained(loaded(tmp_path/"base"), tmp_path/"a").eval())
    Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe)
    bare, merged = logits(loaded(tmp_path/"base")), logits(loaded(tmp_path/"merged"))
    assert (merged - right).abs().max() <= 1e-3*(right - bare).abs().max()


def test_each_tensor_keeps_its_own_type(tmp_path):
    model, recipe = based(tmp_path/"base", dtype=torch.bfloat16)
    file = tmp_path/"base"/"model.safetensors"
    save_file({k: X.float() if "norm" in k else X for k, X in load_file(file).items()}, file, metadata=dict(format="pt"))
    adapter(loaded(tmp_path/"base"), tmp_path/"a", noise=.1)
    Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe)
    before, after = (load_file(tmp_path/o/"model.safetensors") for o in ("base", "merged"))
    assert {k: X.dtype for k, X in before.items()} == {k: X.dtype for k, X in after.items()}
    assert [k for k in before if not before[k].equal(after[k])] == [f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)]


def test_the_sum_is_made_in_float32_and_rounded_once(tmp_path):
    _, recipe = based(tmp_path/"base", dtype=torch.float16)
    lora = adapter(loaded(tmp_path/"base"), tmp_path/"a", noise=.02)
    Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe.replace(dtype="bfloat16"))
    layer = lora.base_model.model.model.layers[0].self_attn.q_proj
    right = (layer.base_layer.weight.float() + layer.get_delta_weight("default").float()).half()
    assert load_file(tmp_path/"merged"/"model.safetensors")["model.layers.0.self_attn.q_proj.weight"].equal(right)


def test_a_merge_that_is_too_far_off_is_asked_for(tmp_path):
    model, recipe = based(tmp_path/"base")
    for p in (m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)): p.data *= 12  # so that NF4 hurts
    with quiet_libraries(): model.save_pretrained(tmp_path/"base")
    adapter(loaded(tmp_path/"base"), tmp_path/"a", noise=.02)
    merge = lambda **kw: Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe.replace(quant="nf4"), **kw)
    said = refusal(merge)
    assert "nats a token" in said and "even_if_far=True" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "base"]
    made = merge(even_if_far=True)
    last, base = list(made.drift.values())[-2:]
    assert last["kl"] > base["kl"] > 0 and (tmp_path/"merged"/"model.safetensors").is_file()


def test_what_peft_cannot_merge_is_one_sentence(tmp_path):
    model, recipe = based(tmp_path/"base")
    adapter(model, tmp_path/"a", alora_invocation_tokens=[1, 2])
    merge = lambda: Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe)
    assert "PEFT cannot add this adapter" in refusal(merge)
    adapter(loaded(tmp_path/"base"), tmp_path/"b")
    file = tmp_path/"b"/"adapter_model.safetensors"
    save_file({k: X*float("nan") for k, X in load_file(file).items()}, file, metadata=dict(format="pt"))
    assert refusal(lambda: Adapter(tmp_path/"b").merge(tmp_path/"merged", recipe=recipe))
    assert not (tmp_path/"merged").exists() and not (tmp_path/"merged.new").exists()


# --- a base that is stored in 4 bits ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    "A base in NF4 with a layer left whole, that says to compute in bfloat16"
    home = tmp_path_factory.mktemp("stored")
    _, recipe = based(home/"full")
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["lm_head", "down_proj"])
    with quiet_libraries():
        AutoModelForCausalLM.from_pretrained(home/"full", quantization_config=bits).save_pretrained(home/"full-bnb-4bit")
    tokenizer(home/"full-bnb-4bit")
    return home, recipe.replace(model=str(home/"full-bnb-4bit"), quant="nf4")


def test_what_was_left_whole_is_planned_so(stored):
    model = load_base(stored[1])[0]
    assert type(model.model.layers[0].mlp.down_proj) is torch.nn.Linear
    real = sum(p.untyped_storage().nbytes() for p in model.parameters())
    assert plan(stored[1]).parts["weights"] == pytest.approx(real, rel=.001)


def test_a_recipe_decides_what_is_computed_in(stored):
    for dtype in (torch.float32, torch.bfloat16):
        model = load_base(stored[1].replace(dtype=str(dtype).removeprefix("torch.")))[0]
        assert model.model.layers[0].self_attn.q_proj.compute_dtype == dtype


def test_a_base_in_4_bits_has_one_way(stored):
    assert list(three_ways(stored[1])) == ["QLoRA"] and three_ways(stored[1])["QLoRA"].peak
    assert "is stored in nf4" in refusal(lambda: plan(stored[1].replace(quant="none"), full=True).peak)


def test_the_twin_is_named(stored, tmp_path):
    home, recipe = stored
    adapter(loaded(home/"full"), tmp_path/"a", noise=.3)
    merge = lambda r: Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=r)
    assert repr(str(home/"full")) in refusal(lambda: merge(recipe))
    assert merge(recipe.replace(model=str(home/"full"))).path.is_dir()


# --- names that lead to the same place --------------------------------------------------------------------------------

def test_names_hold_in_another_working_directory(tmp_path, monkeypatch):
    for name in ("base", "start"): (tmp_path/name).mkdir()
    (tmp_path/"d.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    told = with_absolute_names(Recipe(model="base", data="d.jsonl", adapter_name_or_path="start"))
    assert (told.model, told.data, told.adapter_name_or_path) == tuple(str(tmp_path/o) for o in ("base", "d.jsonl", "start"))
    rows = [dict(text="a")]
    assert with_absolute_names(Recipe(data=rows)).data == rows and with_absolute_names(Recipe()).data == "petit/translate"


def test_what_lies_in_the_folder_wins_over_what_lies_here(tmp_path, monkeypatch):
    (tmp_path/"run"/"start").mkdir(parents=True)
    for folder in (tmp_path, tmp_path/"run"): (folder/"data.jsonl").write_text("{}")
    Recipe(model="x", data="data.jsonl", adapter_name_or_path="start").to_yaml(tmp_path/"run"/"recipe.yaml")
    monkeypatch.chdir(tmp_path)
    found = read_recipe("run")
    assert (found.data, found.adapter_name_or_path) == ("run/data.jsonl", "run/start")


def test_a_run_keeps_its_own_rows_where_a_file_of_that_name_lies_about(tmp_path, monkeypatch):
    from loranb.runs.folder import write_head
    monkeypatch.chdir(tmp_path)
    (tmp_path/"data.jsonl").write_text("{}")
    write_head(Path("run"), Recipe(data=[dict(prompt="2+2", completion="4")]*30), threads=1)
    assert "data: data.jsonl\n" in (tmp_path/"run"/"recipe.yaml").read_text()
    write_head(Path("next"), Recipe(data="data.jsonl"), threads=1)
    assert f"data: {tmp_path/'data.jsonl'}\n" in (tmp_path/"next"/"recipe.yaml").read_text()
