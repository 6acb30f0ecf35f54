"Fused layers compute what PEFT's own do, and leave to PEFT what is not the plain sum of one adapter"
import copy, pickle

import pytest, torch
from peft import get_peft_model, LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from loranb.core.recipe import Recipe
from loranb.models import petit
from loranb.models.fused import AdaptedProduct, fuse_layers, only_adapter
from loranb.models.loading import load_base
from loranb.models.lora import attach

IDS = torch.arange(40).reshape(2, 20) % 96


def adapted(**fields):
    "A small Llama with an adapter whose B is not zero"
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=True))
    model.requires_grad_(False)
    lora = get_peft_model(model, LoraConfig(**dict(dict(r=4, lora_alpha=8, target_modules="all-linear"), **fields)))
    for name, p in lora.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.1)
    return lora


def both(**fields):
    plain = adapted(**fields)
    fused = copy.deepcopy(plain)
    fuse_layers(fused)
    return plain, fused


def gradients(model, **amp):
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", **(amp or dict(enabled=False))): loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def used(model, monkeypatch):
    "How many products were fused in a forward pass"
    n, apply = [], AdaptedProduct.apply
    monkeypatch.setattr(AdaptedProduct, "apply", lambda *args: n.append(1) or apply(*args))
    model(input_ids=IDS)
    return len(n)


@pytest.mark.parametrize("fields", [{}, dict(use_rslora=True), dict(rank_pattern={"q_proj": 2}),
    dict(init_lora_weights="pissa"), dict(modules_to_save=["embed_tokens"])])
def test_loss_and_gradients_are_pefts(fields):
    (loss, grads), (loss_, grads_) = map(gradients, both(**fields))
    assert abs(loss - loss_) < 1e-6 and (grads - grads_).norm() < 1e-5*grads.norm()


def test_under_autocast():
    plain, fused = both()
    exact = gradients(plain)[1]
    off = [(gradients(o, dtype=torch.bfloat16)[1] - exact).norm()/exact.norm() for o in (plain, fused)]
    assert off[1] < 1.5*off[0]


def test_with_activation_checkpointing():
    plain, fused = both()
    whole = gradients(fused)[1]
    for o in (plain, fused): o.enable_input_require_grads(); o.gradient_checkpointing_enable(dict(use_reentrant=False))
    assert torch.equal(gradients(fused.train())[1], whole)
    assert (gradients(plain.train())[1] - whole).norm() < 1e-5*whole.norm()


@pytest.mark.parametrize("quant,fused", [("none", 28), ("nf4", 28), ("fp4", 28), ("int8", 0)])
def test_which_quantizations(quant, fused, monkeypatch):
    model, _ = load_base(Recipe(quant=quant))
    assert used(attach(model, Recipe(quant=quant, r=4)), monkeypatch) == fused


@pytest.mark.parametrize("fields", [dict(use_dora=True), dict(lora_dropout=.5), dict(lora_bias=True)])
def test_what_is_no_plain_sum_is_pefts(fields, monkeypatch):
    plain, fused = both(**fields)
    assert used(fused, monkeypatch) == (14 if fields.get("lora_dropout") and not fused.training else 0)
    (loss, grads), (loss_, grads_) = map(gradients, (plain.train(), fused.train()))
    assert loss == loss_ and torch.equal(grads, grads_)


def test_dropout_is_none_where_the_model_is_not_trained(monkeypatch):
    _, fused = both(lora_dropout=.5)
    assert used(fused.eval(), monkeypatch) == 14


def test_switched_off_merged_and_with_two():
    plain, fused = both()
    logits = lambda m: m(input_ids=IDS).logits
    with plain.disable_adapter(), fused.disable_adapter(): assert torch.equal(logits(plain), logits(fused))
    for o in (plain, fused): o.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    fused.load_state_dict(plain.state_dict())
    for o in (plain, fused): o.base_model.set_adapter(["default", "second"])
    assert torch.allclose(logits(plain), logits(fused), atol=1e-5)
    for o in (plain, fused): o.base_model.set_adapter("second")
    assert torch.allclose(logits(plain), logits(fused), atol=1e-5)
    a, b = (logits(o.merge_and_unload()) for o in (plain, fused))
    assert torch.equal(a, b)


def test_a_hook_on_b_sees_it(monkeypatch):
    _, fused = both()
    layer, seen = fused.get_base_model().model.layers[0].self_attn.q_proj, []
    layer.lora_B["default"].register_forward_hook(lambda m, a, out: seen.append(out.shape))
    fused(input_ids=IDS)
    assert seen == [(2, 20, 32)] and only_adapter(layer) is None


def test_whoever_keeps_what_the_base_says_keeps_that():
    _, fused = both()
    layer, kept = fused.get_base_model().model.layers[0].self_attn.q_proj, []
    layer.base_layer.register_forward_hook(lambda m, a, out: kept.append((a[0], out)))
    fused(input_ids=IDS)
    (x, out), = kept
    assert torch.allclose(out, torch.nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias))


def test_a_copy_and_a_pickle_are_of_their_own():
    _, fused = both()
    before = fused(input_ids=IDS).logits
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.allclose(other(input_ids=IDS).logits, before, atol=1e-6)
        for p in other.parameters(): p.data.zero_()
        assert torch.equal(fused(input_ids=IDS).logits, before)


def test_types_that_nothing_converts():
    "Factors in float32 on a base in bfloat16, as between two steps"
    plain = adapted().to(torch.bfloat16)
    for name, p in plain.named_parameters():
        if "lora_" in name: p.data = p.data.float()
    fused = copy.deepcopy(plain)
    fuse_layers(fused)
    assert torch.equal(plain(input_ids=IDS).logits, fused(input_ids=IDS).logits)
