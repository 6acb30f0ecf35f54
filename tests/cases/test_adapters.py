"An adapter's folder is read right or refused in one sentence, and what is merged is what was trained"
import json, sys, time

import pytest, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from loranb import Adapter, Spectra, plan
from loranb.adapters.folder import adapter_card
from loranb.core.recipe import Recipe
from loranb.models.hub import quiet_libraries
from loranb.models.loading import load_base
from small import adapter, change_config, chat, llama, refusal, tokenizer, within, write_rows

CHATS = [chat(f"say {w} {i}", w) for i, w in enumerate(("one", "two", "four", "blue")*5)]


def based(folder, **changes):
    "A base with its tokenizer, and a recipe for it"
    model = llama(folder, **changes)
    tokenizer(folder)
    return model, Recipe(model=str(folder), data=write_rows(folder/"d.jsonl", CHATS), quant="none", r=4, max_length=64)


def loaded(path):
    with quiet_libraries(): return AutoModelForCausalLM.from_pretrained(path).eval()


# Fields that change what the tensors mean

@pytest.mark.parametrize("layout", ["rank_major", "grouped_by_expert"])
def test_the_layout_of_experts_is_obeyed_or_refused(layout, tmp_path):
    E, r, n, m, draw = 4, 3, 32, 24, torch.Generator().manual_seed(0)
    A, B = torch.randn(E*r, n, generator=draw), torch.randn(m, E*r, generator=draw)
    key = "base_model.model.model.layers.0.mlp.experts.lora_{}.weight"
    save_file({key.format("A"): A, key.format("B"): B}, tmp_path/"adapter_model.safetensors")
    (tmp_path/"adapter_config.json").write_text(json.dumps(dict(peft_type="LORA", r=r, lora_alpha=r,
        target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"], lora_B_layout=layout)))
    if "lora_B_layout" in refusal(lambda: Spectra.of(tmp_path)): return
    read = Spectra.of(tmp_path)
    for e in range(E):
        mine = B.reshape(m, r, E)[:, :, e] if layout == "rank_major" else B[:, e*r:(e + 1)*r]
        right = torch.linalg.svdvals(mine.double() @ A[e*r:(e + 1)*r].double())[:r]
        assert torch.allclose(torch.tensor(read[e].copy()).double(), right, rtol=1e-4)


def test_a_layout_that_nobody_knows_is_refused(tmp_path):
    model, _ = based(tmp_path/"base")
    adapter(model, tmp_path/"a", noise=.1)
    change_config(tmp_path/"a", lora_B_layout="by_moonlight")
    assert "lora_B_layout" in refusal(lambda: Spectra.of(tmp_path/"a"))


# One guarded reader

READERS = dict(spectra=lambda folder, recipe: Spectra.of(folder), merge=lambda folder,
    recipe: Adapter(folder).merge(folder/"merged", recipe=recipe))


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_opens_a_pickle(reader, tmp_path):
    model, recipe = based(tmp_path/"base")
    adapter(model, tmp_path/"a")
    torch.save(load_file(tmp_path/"a"/"adapter_model.safetensors"), tmp_path/"a"/"adapter_model.bin")
    (tmp_path/"a"/"adapter_model.safetensors").unlink()
    assert "adapter_model.bin" in refusal(lambda: READERS[reader](tmp_path/"a", recipe))
    assert not (tmp_path/"a"/"merged").exists()


@pytest.mark.parametrize("reader", READERS)
def test_no_file_of_an_adapter_is_ever_code(reader, tmp_path, monkeypatch):
    model, recipe = based(tmp_path/"base")
    adapter(model, tmp_path/"a")
    package = tmp_path/"a"/"megatron"
    package.mkdir()
    (package/"__init__.py").write_text("open('ran', 'w')")
    (package/"core.py").write_text("")
    change_config(tmp_path/"a", megatron_config={"tensor_model_parallel_size": 1}, megatron_core="megatron.core")
    monkeypatch.chdir(tmp_path/"a")
    monkeypatch.syspath_prepend("")
    try: said = refusal(lambda: READERS[reader](tmp_path/"a", recipe))
    finally: [sys.modules.pop(n) for n in [*sys.modules] if n.partition(".")[0] == "megatron"]
    assert not (tmp_path/"a"/"ran").exists() and "Megatron" in said


PATTERNS = {"rank_pattern": ("spectra", {".*"*12 + "!": 4}), "alpha_pattern": ("spectra", {".*"*12 + "!": 4}),
    "target_modules": ("merge", ".*"*12 + "!")}


@pytest.mark.parametrize("field", PATTERNS)
def test_no_pattern_of_an_adapter_hangs_its_reader(field, tmp_path):
    reader, pattern = PATTERNS[field]
    model, recipe = based(tmp_path/"base", hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    adapter(model, tmp_path/"a")
    change_config(tmp_path/"a", **{field: pattern})
    with within(4): assert field in refusal(lambda: READERS[reader](tmp_path/"a", recipe))


def test_a_pattern_as_people_write_them_is_read(tmp_path):
    model, _ = based(tmp_path/"base")
    adapter(model, tmp_path/"a", noise=.1, rank_pattern={r".*\.layers\.0\..*q_proj": 2})
    start = time.monotonic()
    assert [m["r"] for m in Spectra.of(tmp_path/"a").modules] == [2, 4] and time.monotonic() - start < 2


# What is merged

@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_tied_weight_is_untied_or_its_merge_is_refused(target, tmp_path):
    _, recipe = based(tmp_path/"base", tie_word_embeddings=True)
    adapter(loaded(tmp_path/"base"), tmp_path/"a", noise=.1, target_modules=["q_proj", target])
    if target in refusal(lambda: Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe)):
        return (tmp_path/"merged").exists() and pytest.fail("refused, and written all the same")
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        bare, merged = (loaded(tmp_path/o)(ids).logits for o in ("base", "merged"))
        right = PeftModel.from_pretrained(loaded(tmp_path/"base"), tmp_path/"a").eval()(ids).logits
    assert (merged - right).abs().max() <= .01*(right - bare).abs().max()


@pytest.mark.parametrize("stored,computed", [("float16", "auto"), ("float16", "bfloat16"), ("bfloat16", "float32")])
def test_a_merge_keeps_the_stored_type_and_what_the_adapter_leaves(stored, computed, tmp_path):
    model, recipe = based(tmp_path/"base", dtype=getattr(torch, stored))
    adapter(model, tmp_path/"a")
    Adapter(tmp_path/"a").merge(tmp_path/"merged", recipe=recipe.replace(dtype=computed))
    before, after = (load_file(tmp_path/o/"model.safetensors") for o in ("base", "merged"))
    assert all(before[k].dtype == after[k].dtype and before[k].equal(after[k]) for k in before)


# A base that is stored in 4 bits

@pytest.fixture(scope="module", params=["nf4", "fp4"])
def stored(request, tmp_path_factory):
    "The folder of a base in 4 bits, their kind, a recipe without a quantization, and an adapter"
    home, kind = tmp_path_factory.mktemp(f"stored-{request.param}"), request.param
    _, recipe = based(home/"full")
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32)
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(home/"full", quantization_config=bits)
        model.save_pretrained(home/"4bit")
    tokenizer(home/"4bit")
    adapter(model, home/"a", noise=.1)
    return home, kind, recipe.replace(model=str(home/"4bit"))


@pytest.mark.parametrize("quant", ["none", "int8", "another"])
def test_another_quant_than_the_stored_one_is_refused(quant, stored):
    _, kind, recipe = stored
    other = recipe.replace(quant=quant if quant != "another" else dict(nf4="fp4", fp4="nf4")[kind])
    for said in (refusal(lambda: load_base(other)), refusal(lambda: plan(other).peak)):
        assert "quant" in said and kind in said


def test_the_stored_quant_is_loaded_and_planned(stored):
    _, kind, recipe = stored
    same = recipe.replace(quant=kind)
    model = load_base(same)[0]
    layer = model.model.layers[0].self_attn.q_proj
    real = sum(p.untyped_storage().nbytes() for p in model.parameters())
    assert layer.weight.quant_type == kind and plan(same).parts["weights"] == pytest.approx(real, rel=.001)


def test_another_double_quant_than_the_stored_one_is_refused(stored):
    _, kind, recipe = stored
    said = refusal(lambda: load_base(recipe.replace(quant=kind, bnb_4bit_use_double_quant=False)))
    assert "bnb_4bit_use_double_quant" in said


def test_a_merge_into_a_base_in_4_bits_is_dequantized_or_refused(stored, tmp_path):
    home, kind, recipe = stored
    said = refusal(lambda: Adapter(home/"a").merge(tmp_path/"merged", recipe=recipe.replace(quant=kind)))
    if said: assert "16" in said and not (tmp_path/"merged").exists()
    else: assert "quantization_config" not in json.loads((tmp_path/"merged"/"config.json").read_text())


# What the card says

@pytest.mark.parametrize("fields,line", [(dict(revision="v1"), "revision='v1'"), (dict(trust_remote_code=True),
    "trust_remote_code=True"), (dict(task_type="SEQ_CLS", labels=["World", "Sports"]), "World")])
def test_the_card_loads_the_base_that_was_trained_on(fields, line):
    assert line in adapter_card("owner/name", Recipe(model="owner/name", **fields), "float32")
