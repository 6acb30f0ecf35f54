"The tiled loss is the loss of the model's own logits, in every family that changes them behind its head"
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from loranb.models import loss
from loranb.models.loss import check_tiles, token_loss

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=48,
    vocab_size=96, head_dim=16, pad_token_id=0)
TWISTS = dict(llama={}, gemma2=dict(final_logit_softcapping=2.), granite=dict(logits_scaling=4.),
    cohere=dict(logit_scale=.25), gpt2=dict(n_embd=32, n_layer=2, n_head=2), gpt_neox={},
    opt=dict(ffn_dim=48, word_embed_proj_dim=32), phi={}, falcon_h1=dict(lm_head_multiplier=.5, mamba_d_ssm=32,
    mamba_n_heads=2, mamba_d_head=16, mamba_d_state=8))


def build(kind, **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **TWISTS[kind]}, **more))


def batch(rows=3, tokens=17, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 96, (rows, tokens), generator=g)
    return dict(input_ids=ids, labels=ids.masked_fill(torch.rand(rows, tokens, generator=g) < .6, -100),
        attention_mask=torch.ones_like(ids))


def adapted(model, **kw):
    lora = get_peft_model(model, LoraConfig(**{"target_modules": "all-linear", "r": 2, "init_lora_weights": False,
        **kw}))
    return lora.eval()


def both(model, rows, **kw):
    "Loss and gradients by the model's own logits and in tiles"
    out = []
    for tiled in (False, True):
        model.zero_grad()
        value = token_loss(model, rows, tiled=tiled, **kw)
        value.backward()
        out.append((value.item(), torch.cat([p.grad.float().flatten() for p in model.parameters()
            if p.grad is not None])))
    return out


def same(a, b, tolerance=1e-5):
    assert abs(a[0] - b[0]) <= tolerance*abs(a[0]) and (a[1] - b[1]).norm() <= tolerance*a[1].norm()


@pytest.mark.parametrize("kind", TWISTS)
def test_families(kind, monkeypatch):
    monkeypatch.setattr(loss, "tile_size", lambda device: 96*5)
    model = adapted(build(kind), target_modules=["q_proj", "v_proj"] if kind == "falcon_h1" else "all-linear")
    assert check_tiles(model, list(range(1, 20)))
    same(*both(model, batch()))
    own = model(**batch()).loss.item()
    assert abs(own - token_loss(model, batch()).item()) < 1e-5*own


@pytest.mark.parametrize("kw", [dict(target_modules=["q_proj", "lm_head"]), dict(modules_to_save=["lm_head"])],
    ids=["LoRA on the head", "the head itself"])
def test_a_head_that_is_trained(kw, monkeypatch):
    monkeypatch.setattr(loss, "tile_size", lambda device: 96*5)
    same(*both(adapted(build("llama", tie_word_embeddings=False), **kw), batch()))


def test_autocast_reaches_the_tiles():
    model, seen = adapted(build("llama")), []
    head = model.get_base_model().get_output_embeddings()
    score = loss.F.cross_entropy
    with torch.autocast("cpu", torch.bfloat16): a, b = both(model, batch())
    same(a, b, 2e-2)
    handle = head.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    forward = model.forward
    def mixed(*args, **kw):
        with torch.autocast("cpu", torch.bfloat16): return forward(*args, **kw)
    model.forward = mixed
    token_loss(model, batch())
    handle.remove()
    assert seen[-1] == torch.bfloat16 and score is loss.F.cross_entropy


def test_tokens_of_the_step_normalize_it():
    model, rows = adapted(build("llama")), batch(4)
    n = (rows["labels"][:, 1:] != -100).sum()
    parts = [token_loss(model, {k: v[i:i + 1] for k, v in rows.items()}, n).item() for i in range(4)]
    assert abs(sum(parts) - token_loss(model, rows).item()) < 1e-5


def test_nothing_learned_is_zero():
    model, rows = adapted(build("llama")), batch()
    rows["labels"][:] = -100
    assert token_loss(model, rows).item() == 0
    token_loss(model, rows).backward()


def test_the_head_comes_back_as_it_was():
    model = adapted(build("llama"))
    head = model.get_base_model().get_output_embeddings()
    with pytest.raises((TypeError, ValueError)): token_loss(model, dict(batch(), nonsense=1, input_ids=None))
    assert "forward" not in head.__dict__
    own = head.forward
    head.forward = lambda x: own(x)
    mine = head.forward
    token_loss(model, batch())
    assert head.forward is mine


def test_no_more_logits_than_a_tile(monkeypatch):
    monkeypatch.setattr(loss, "tile_size", lambda device: 96*4)
    model, most = adapted(build("llama")), []
    handle = model.get_base_model().get_output_embeddings().register_forward_hook(lambda m, args,
        out: most.append(out.numel()))
    token_loss(model, batch(8, 33)).backward()
    handle.remove()
    assert max(most) <= 96*4 and sum(most[1:]) == 96*int((batch(8, 33)["labels"][:, 1:] != -100).sum())


EXPERTS = dict(mixtral=dict(num_local_experts=4), qwen2_moe=dict(num_experts=4, moe_intermediate_size=32,
    shared_expert_intermediate_size=32))

def routed(kind, weight=.5, on=True):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **EXPERTS[kind]}, output_router_logits=on,
        router_aux_loss_coef=weight)
    return adapted(AutoModelForCausalLM.from_config(config), target_modules=["q_proj"])


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_routers_loss_is_what_transformers_adds(kind):
    model, plain = routed(kind), routed(kind, on=False)
    same(*both(model.train(), batch()))
    own = model(**batch()).loss.item()
    assert abs(own - token_loss(model, batch()).item()) < 1e-5*own
    bare = token_loss(plain.train(), batch()).item()
    assert bare + .3 < own, "the routers add their part"
    assert token_loss(model.eval(), batch()).item() == bare, "a held-out loss is nats a token"


def test_the_routers_loss_weighs_the_same_in_parts():
    model, row = routed("mixtral").train(), batch(1)
    rows = {k: v.repeat(4, 1) for k, v in row.items()}
    n = (rows["labels"][:, 1:] != -100).sum()
    parts = sum(token_loss(model, {k: v[i:i + 2] for k, v in rows.items()}, n).item() for i in (0, 2))
    assert abs(parts - token_loss(model, rows).item()) < 1e-5
