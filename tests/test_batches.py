"Packed rows have the loss and the gradients of rows alone; a step does not depend on how it is cut into batches; a run goes on to the bit"
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from loranb.data.batches import ByLength, Encoded, Packed, best_fit, check_packing, collate, packed_positions, not_padding
from loranb.train.meter import Meter
from loranb.models.loss import token_loss
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=48,
    vocab_size=96, head_dim=16, pad_token_id=0)
LENGTHS = (17, 3, 9, 30, 5, 12, 2, 22)


def rows(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 96, n).tolist() for n in lengths]
    return [Encoded(x, [-100, *(t if rng.random() < .6 or i == len(x) - 2 else -100 for i, t in enumerate(x[1:]))])
        for x in ids]


def packed(items, size=40):
    class Rows(list): lengths = np.array([len(r.input_ids) for r in items])
    return Packed(Rows(items), size)


def adapted(kind="llama", attention="sdpa", checkpointing=False, **more):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **more}),
        attn_implementation=attention)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if checkpointing: model.gradient_checkpointing_enable(dict(use_reentrant=False)); model.enable_input_require_grads()
    return model.train()


def measured(model, batches, n):
    model.zero_grad()
    losses = [token_loss(model, b, n) for b in batches]
    sum(losses).backward()
    return sum(losses).item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_is_unpacked(attention, checkpointing):
    model, items = adapted(attention=attention, checkpointing=checkpointing), rows()
    n, packs = sum(r.learned for r in items), packed(items)
    assert len(packs) == 3 and len({p.lengths for p in packs}) == 3
    loss, grad = measured(model, [collate([r], 0) for r in items], n)
    for batches in ([collate(packs[:], 0)], [collate([p], 0) for p in packs], [collate(items, 0)]):
        other, grads = measured(model, batches, n)
        assert abs(other - loss) < 1e-5 and (grads - grad).abs().max() < 1e-4
    leak = collate(packs[:], 0)
    leak["attention_mask"] = torch.ones_like(leak["input_ids"])  # trl#3067: what an ordinary collator adds
    other, grads = measured(model, [leak], n)
    assert abs(other - loss) > 1e-3 and (grads - grad).abs().max() > 1e-2


@pytest.mark.parametrize("kind, more", [("mistral", dict(sliding_window=6)), ("gemma3_text", dict(sliding_window=6)),
    ("gpt2", dict(n_embd=32, n_layer=2, n_head=2)), ("gpt_neox", {}), ("phi3", {}), ("olmo2", {})])
def test_other_families(kind, more):
    model, items = adapted(kind, **more).eval(), rows()  # without the dropout that some have
    check_packing(model, items, 0, 40)
    n = sum(r.learned for r in items)
    loss, other = (measured(model, [collate(o, 0)], n)[0] for o in (items, packed(items)[:]))
    assert abs(other - loss) < 1e-5


@pytest.mark.parametrize("kind, more", [("bloom", dict(n_layer=2, n_head=2)), ("mamba", dict(state_size=8)),
    ("mpt", dict(d_model=32, n_heads=2, n_layers=2))])
def test_families_that_are_refused(kind, more):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **more})).eval()
    with pytest.raises(RecipeError, match=f"packing: {kind} does not keep packed rows apart.*packing=False"):
        check_packing(model, rows(), 0, 40)


def test_attention_in_chunks_is_refused_by_its_size():
    model = adapted()
    model.config.attention_chunk_size = 32
    with pytest.raises(RecipeError, match="chunks of 32 tokens"): check_packing(model, rows(), 0, 40)
    check_packing(model, rows(), 0, 32)


@given(st.lists(st.integers(2, 50), min_size=1, max_size=200))
def test_every_row_is_packed_once(lengths):
    packs = best_fit(lengths, 50)
    assert sorted(i for p in packs for i in p) == list(range(len(lengths)))
    full = [sum(lengths[i] for i in p) for p in packs]
    assert max(full) <= 50 and sum(f <= 25 for f in full) <= 1, "two half-empty rows would fit into one"


@given(st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=4), min_size=1, max_size=4))
def test_padding_is_told_from_rows(packs):
    n = max(map(sum, packs))
    batch = dict(position_ids=torch.tensor([packed_positions(p, n) for p in packs]))
    assert not_padding(batch).sum(1).tolist() == list(map(sum, packs)) and all((not_padding(batch)[i, :sum(p)]
        == 1).all() for i, p in enumerate(packs))


def test_rows_of_about_one_length():
    lengths = np.random.default_rng(0).integers(2, 500, 1003)
    order = ByLength(lengths, 8, seed=1)
    first = list(order)
    assert first == list(order) and sorted(first) == list(range(1003)) and first != sorted(first)
    spread = lambda xs: np.mean([np.ptp(lengths[xs[i:i + 8]]) for i in range(0, 1000, 8)])
    assert spread(first) < spread(list(range(1003)))/10
    order.set_epoch(1)
    assert list(order) != first


def unequal(n=20):
    words = "the cat sleeps and the dog eats near the old house with a red door".split()
    return [dict(prompt=" ".join(words[:1 + i%7]) + " =",
        completion=" " + " ".join(words[j%14] for j in range(1 + i*i//5))) for i in range(n)]


@pytest.mark.slow
def test_accumulation_gives_the_same_gradient(tmp_path, monkeypatch):
    "field.md 3: transformers#35203, #37766, #38448; Soup#720"
    grads = {}
    def keep(meter, factor=1.):
        grads[len(grads)] = torch.cat([p.grad.flatten().clone() for p in meter.model.parameters() if p.requires_grad])
    monkeypatch.setattr(Meter, "gradients", keep)
    cuts = [(16, 1, {}), (1, 16, {}), (4, 4, dict(gradient_checkpointing=True))]
    for b, a, more in cuts:
        Run(Recipe(data=unequal(), test_size=0, r=4, quant="none", max_steps=1, max_grad_norm=0., eval_steps=0,
            spectra_steps=0, per_device_train_batch_size=b, gradient_accumulation_steps=a, **more),
            tmp_path/f"{len(grads)}").train()
    assert len(grads) == len(cuts) and grads[0].abs().max() > 1e-3
    for i in (1, 2): assert (grads[i] - grads[0]).abs().max() < 1e-5
    lengths = sorted(len(r["completion"].split()) for r in unequal())
    assert lengths[-1] > 50*lengths[0]


def sha(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("fields", [dict(packing=True, max_length=96), dict(group_by_length=True)])
@pytest.mark.slow
def test_a_run_goes_on_to_the_bit(tmp_path, fields):
    recipe = Recipe(data=unequal(22), test_size=2, r=4, quant="none", max_steps=7, spectra_steps=0, eval_steps=0,
        per_device_train_batch_size=4, lora_dropout=.1, **fields)
    whole, run = Run(recipe, tmp_path/"whole").train(), Run(recipe, tmp_path/"run")
    epoch = -(-len(whole._data.train)//4)
    assert 2 < epoch < 6
    run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == epoch + 1 else None).train()
    assert sha(Run.open(run.path).resume()) == sha(whole)
    assert sum(e["tokens"] for e in whole.of_type("step")[:epoch]) == whole._data.train.lengths.sum()


def test_the_watch_does_not_count_padding(tmp_path):
    from loranb.evaluate.watch import Watch
    model, items = adapted(), rows()
    def seen(batch):
        watch = Watch(model)
        with watch: token_loss(model, batch)
        return sum(o["tokens"].sum() for o in watch.sums())/len(watch.layers)
    assert seen(collate(packed(items)[:], 0)) == seen(collate(items, 0)) == sum(LENGTHS)
