"Attention in blocks is the attention of the whole square"
import pytest, torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen3MoeConfig

from loranb.models.attention import BLOCK, NAME, attend_in_blocks, use_blocks

SMALL = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=1024)
CONFIGS = dict(llama=LlamaConfig(**SMALL), window=MistralConfig(**SMALL, sliding_window=100),
    both=Gemma3TextConfig(**SMALL, sliding_window=100, attn_logit_softcapping=None),
    experts=Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16))


def made(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa")
    return model.eval()


def batches():
    "Rows of one length, rows that are filled up on either side, and packed ones"
    ids = torch.randint(0, 96, (2, 3*BLOCK - 20), generator=torch.Generator().manual_seed(1))
    full = torch.ones_like(ids)
    right, left = full.clone(), full.clone()
    right[1, 200:] = left[1, :90] = 0
    packed = torch.cat([torch.arange(150), torch.arange(ids.shape[1] - 150)]).repeat(2, 1)
    return dict(full=dict(attention_mask=full), right=dict(attention_mask=right), left=dict(attention_mask=left),
        packed=dict(position_ids=packed)), ids


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rows", ("full", "right", "left", "packed"))
def test_logits_and_gradients_are_those_of_sdpa(name, rows):
    model, (kinds, ids) = made(name), batches()
    counts = kinds[rows].get("attention_mask", torch.ones_like(ids)).bool()
    def asked():
        model.zero_grad()
        logits = model(input_ids=ids, **kinds[rows], use_cache=False).logits[counts]
        logits.square().sum().backward()
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    (logits, grads), _ = asked(), use_blocks(model)
    assert model.config._attn_implementation == NAME
    logits_, grads_ = asked()
    assert (logits - logits_).abs().max() < 1e-5 and (grads - grads_).norm() < 1e-5*grads.norm()


def test_a_prefix_that_looks_ahead():
    q, k, v = torch.randn(3, 2, 4, 300, 8).unbind()
    mask = torch.ones(300, 300, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
    mask[..., :200] = True
    out, _ = attend_in_blocks(torch.nn.Module(), q, k, v, mask)
    assert torch.allclose(out, torch.nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2))


def test_generates_the_same():
    model = made("llama")
    ids = torch.randint(0, 96, (1, 300), generator=torch.Generator().manual_seed(1))
    answer = lambda: model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    before = answer()
    use_blocks(model)
    assert torch.equal(answer(), before)


@pytest.mark.parametrize("other", ("eager", "sdpa"))
def test_what_was_asked_for_stays(other, tmp_path):
    model = made("llama")
    if other == "eager": model.set_attn_implementation("eager")
    use_blocks(model)
    assert model.config._attn_implementation == ("eager" if other == "eager" else NAME)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path/"config.json").read_text()
