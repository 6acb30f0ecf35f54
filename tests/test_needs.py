"""What users of other trainers lost runs to, each with its threads: a naive pipeline, written here, has the fault; loranb has not

The numbers are those of the list of needs: 3 and 15 are in test_batches.py.
"""
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from loranb.models import petit
from loranb.models.hub import load_tokenizer
from loranb.data.batches import Encoded, collate
from loranb.data.encoding import encode_row, prepare, tokens
from loranb.spectra.factors import read_factors
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.adapters.trimming import trim

from templates import ALL, ends_learned, MANY, ONE
from test_chat import tokenizer

LONG = [dict(role="user", content="the cat sleeps near the old house "*12),
    dict(role="assistant", content="Le chat dort.")]


def naive(tok, messages, max_length=None):
    "What many a script does: one text, tokenized with the defaults, labels where the tokenizer did not pad"
    ids = tok(tok.apply_chat_template(messages, tokenize=False))["input_ids"][:max_length]
    return Encoded(ids, [-100 if i == tok.pad_token_id else i for i in ids])


def stock_mask(tok, messages, max_length=None):
    "What a script does that asks the template for the assistant's tokens"
    out = tok.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return Encoded(out["input_ids"][:max_length],
        [i if m else -100 for i, m in zip(out["input_ids"], out["assistant_masks"])][:max_length])


def learned(tok, row): return tok.decode([l for l in row.labels if l != -100])


def test_4_rows_with_nothing_to_learn():
    "trl#6668, PR #6025, PR #6671; unsloth#2900, #1128, #2364; transformers#30998: loss 0 since every label is masked or cut off"
    tok, rows = load_tokenizer(petit.path()), [dict(messages=ONE)]*9 + [dict(messages=LONG)]
    fault = [stock_mask(tok, r["messages"], 32) for r in rows]
    assert fault[-1].learned == 0 and len(fault) == 10, "trained on as if there were something"
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1))
    assert not np.isfinite(model(**collate(fault[-1:], tok.pad_token_id)).loss.item())
    data = prepare(Recipe(data=rows, max_length=32, test_size=0), tok)
    assert len(data.train) == 9 == len(data.rows) and data.dropped == 1 and all(r.learned for r in data.train)
    with pytest.raises(RecipeError, match="no row has a learned token within its first 32"):
        prepare(Recipe(data=rows[-1:], max_length=32), tok)


@pytest.mark.parametrize("name", [n for n, c in ALL.items() if "generation %" not in c.template])
def test_5_stock_templates_give_no_mask(name):
    "trl#4879, #3586, PR #4201; marin#7237; liquid-finetune#37: the assistant's mask is zero everywhere"
    tok = tokenizer(ALL[name])
    assert stock_mask(tok, MANY).learned == 0
    row = encode_row(tok, dict(messages=MANY))
    assert 0 < row.learned < len(row.input_ids) and "Yo" in learned(tok, row) and "And?" not in learned(tok, row)


@pytest.mark.parametrize("name", ["chatml (Yi)", "OLMo 2, the start token is the end token",
    "Zephyr, headers that are plain text", "Granite"])
def test_6_padding_with_the_end_token_hides_it(name):
    "trl#1623, #2059, PR #3091, #3299; mlabonne/llm-course#33; unsloth#416; QwenLM/Qwen3#1064; LLaMA-Factory#7943; ms-swift#3113: the model never stops"
    tok = tokenizer(ALL[name])
    tok.pad_token = tok.eos_token
    assert tok.eos_token_id in naive(tok, MANY).input_ids and tok.eos_token_id not in naive(tok, MANY).labels
    row = encode_row(tok, dict(messages=MANY))
    assert row.labels.count(tok.eos_token_id) == 2 and ends_learned(tok, row)
    batch = collate([encode_row(tok, dict(messages=ONE)), row], tok.pad_token_id)
    assert (batch["labels"] == tok.eos_token_id).sum(1).tolist() == [1, 2]
    short = int(batch["attention_mask"][0].sum())
    assert (batch["labels"][0, short:] == -100).all() and batch["labels"][0, :short].ne(-100).any()


@pytest.mark.parametrize("name", ["Alpaca style, no end token", "GLM 4, the next header ends a turn",
    "Falcon, plain text that is reformatted", "Nemotron, a line break ends a turn",
    "chatml on a tokenizer that does not know it"])
def test_6_a_template_without_an_end(name):
    "unsloth#416; trl#1623: nothing ends the answer, so nothing is learned about ending it"
    tok = tokenizer(ALL[name])
    assert not ends_learned(tok, naive(tok, MANY)) and ends_learned(tok, encode_row(tok, dict(messages=MANY)))


def test_6_marks_that_leave_the_end_out():
    "trl#2059: the marks of the template enclose the words only"
    tok = tokenizer(ALL["chatml, the marks leave the end token out"])
    assert not ends_learned(tok, stock_mask(tok, ONE)) and ends_learned(tok, encode_row(tok, dict(messages=ONE)))


@pytest.mark.parametrize("name", ["Llama 3", "Gemma 2, no system", "Mistral v1, roles alternate",
    "InternLM 2, a start token before ChatML"])
def test_7_two_start_tokens(name):
    "trl#1400, PR #3328; OpenRLHF#393; Soup#781, #785: the template writes one and the tokenizer adds another"
    from tokenizers.processors import TemplateProcessing
    tok = tokenizer(ALL[name])
    tok.backend_tokenizer.post_processor = TemplateProcessing(single=f"{tok.bos_token} $A",
        special_tokens=[(tok.bos_token, tok.bos_token_id)])
    starts = lambda row: row.input_ids.count(tok.bos_token_id)
    once = tok.apply_chat_template(ONE, tokenize=False).count(tok.bos_token)
    assert starts(naive(tok, ONE)) == once + 1 and starts(encode_row(tok, dict(messages=ONE))) == once == 1
    pair = dict(prompt="a =", completion=" b")
    assert starts(encode_row(tok, pair)) == starts(encode_row(tok, dict(pair, prompt=tok.bos_token + "a ="))) == 1
    assert encode_row(tok, pair).input_ids[0] == tok.bos_token_id and encode_row(tok,
        pair).input_ids[:-1] == tok("a = b")["input_ids"]


def adapted(**kw):
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2))
    return base, get_peft_model(base, LoraConfig(**dict(dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"],
        init_lora_weights=False), **kw)))


def change(model, name="model.layers.0.self_attn.q_proj"):
    return model.get_base_model().get_submodule(name).get_delta_weight("default").detach().double()


def test_14_scaling_of_rank_stabilized_adapters():
    "14 is about adapters. peft PR #3449, PR #3111: scaled by alpha/r where it is alpha/sqrt(r), or twice"
    _, model = adapted(use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 3})
    f = next(f for f in read_factors(model) if f.name.endswith("q_proj"))
    assert not torch.allclose(8/4*(f.B @ f.A).double(), change(model), atol=1e-2)
    assert torch.allclose(f.delta().double(), change(model), atol=1e-6)


def test_14_the_sum_of_two_adapters_has_no_cross_terms():
    "peft#1155, #3004: adding A to A and B to B is not adding B A to B A"
    _, model = adapted()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj"],
        init_lora_weights=False))
    name = "model.layers.0.self_attn.q_proj"
    layer = model.get_base_model().get_submodule(name)
    truth = sum(layer.get_delta_weight(a).detach().double() for a in ("default", "other"))
    one, two = ((layer.lora_A[a].weight.detach(), layer.lora_B[a].weight.detach()) for a in ("default", "other"))
    wrong = 2*(one[1][:, :2] + two[1]) @ (one[0][:2] + two[0])
    both = next(f for f in read_factors(model, ["default", "other"]) if f.name == name)
    assert not torch.allclose(wrong.double(), truth, atol=1e-2) and torch.allclose(both.delta().double(), truth,
        atol=1e-6)


def test_14_ranks_that_differ_by_module_are_read_back(tmp_path):
    "peft#3737: an adapter whose modules have ranks of their own cannot be loaded again"
    import json
    _, model = adapted(rank_pattern={"q_proj": 2})
    folder = trim(model, energy=.8).save(tmp_path/"adapter")
    config, kept = json.loads((folder/"adapter_config.json").read_text()), {f.name: f
        for f in read_factors(str(folder))}
    assert len({f.r for f in kept.values()}) == 2
    again = PeftModel.from_pretrained(adapted()[1].unload(), folder)
    for name, f in kept.items(): assert torch.allclose(f.delta().double(), change(again, name), atol=1e-6)
    (folder/"adapter_config.json").write_text(json.dumps(dict(config, rank_pattern={}, alpha_pattern={})))
    with pytest.raises(RuntimeError, match="size mismatch"): PeftModel.from_pretrained(adapted()[1].unload(), folder)


def test_what_is_given_out_is_what_is_trained():
    recipe = Recipe(test_size=4)
    data, ds = prepare(recipe, load_tokenizer(petit.path())), tokens(recipe)
    assert ds.column_names == ["input_ids", "labels"] and len(ds) == len(data.train)
    assert all(ds[i]["input_ids"] == data.train[i].input_ids and ds[i]["labels"] == data.train[i].labels
        for i in (0, 7, 3999))
    packed = tokens(recipe.replace(packing=True))
    assert packed.column_names == ["input_ids", "labels", "position_ids"] and len(packed) < len(ds)/4
    assert sum(p == 0 for r in packed["position_ids"] for p in r) == len(ds)
