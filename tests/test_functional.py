"What directions do to data and loss, against dense float64 references; the watch on live models"
import contextlib, math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from loranb.models.quantization import is_repacked
from loranb.spectra.factors import read_factors
from loranb.evaluate.directions import (data_singular_values, direction_effects, direction_energy, singular_directions,
    ratio_with_error, lost_beyond)
from loranb.evaluate.watch import Watch, evaluating, measure_directions
from loranb.core.fields import RecipeError
from loranb.spectra.spectra import Spectra

# --- the sums of one module -------------------------------------------------------------------------------------------------------------------

def gauge(r, condition, rng):
    U, V = (np.linalg.qr(rng.normal(size=(r, r)))[0] for _ in range(2))
    D = np.logspace(0, -math.log10(condition), r)
    return U*D @ V, V.T/D @ U.T

def case(m, n, r, kind, seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(r, n))/n**.5, rng.normal(size=(m, r))
    if kind == "graded": B = B*np.logspace(0, -4, r)
    if kind == "zero B": B = 0*B
    if kind == "zero column": B[:, 0] = 0
    if kind == "duplicate rows": A[-1] = A[0]
    if kind == "badly scaled": A, B = A*np.logspace(0, 4, r)[:, None], B*np.logspace(0, -4, r)
    x = rng.normal(size=(50, n))*np.logspace(0, -1.5, n)
    return A, B, x, rng.normal(size=(m, n)), rng

KINDS = ["normal", "graded", "zero B", "zero column", "duplicate rows", "badly scaled"]

@settings(deadline=None, max_examples=150, derandomize=True)
@given(m=st.integers(1, 24), n=st.integers(1, 24), r=st.integers(1, 8), s=st.sampled_from([1., 2., -.5]),
    kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_against_dense(m, n, r, s, kind, seed):
    A, B, x, G, _ = case(m, n, r, kind, seed)
    D, h = s*B @ A, x @ A.T
    H, K = h.T @ h/len(h), B.T @ (s*G @ A.T)
    S, BU, AV, R = singular_directions(A @ A.T, B.T @ B, s)
    top = max(np.linalg.norm(D), 1e-300)
    T = np.zeros(r); T[:min(m, n, r)] = np.linalg.svd(D, compute_uv=False)[:r]
    assert np.abs(S - T).max() <= 1e-7*top
    V = A.T @ R
    U = np.divide(D @ V, S, out=np.zeros((m, r)), where=S > 1e-6*top)
    assert np.abs(U*S @ V.T - D).max() <= 1e-5*top
    assert np.abs(A @ V - AV).max() <= 1e-9*np.linalg.norm(A)
    E, tilde = direction_energy(BU, H, s), data_singular_values(B.T @ B, H, s)
    mean = (np.square(x @ D.T)).sum(1).mean()
    assert E.sum() == pytest.approx(mean, rel=1e-9) and np.square(tilde).sum() == pytest.approx(mean, rel=1e-9)
    live = S > 1e-6*top
    assert np.allclose(E[live], np.square(x @ D.T @ U).mean(0)[live], atol=1e-8*mean)
    dense = np.zeros(r); dense[:min(m, r)] = np.linalg.svd(D @ (x.T @ x/len(x)) @ D.T, compute_uv=False)[:r]
    assert np.allclose(np.square(tilde), dense, atol=1e-9*max(mean, 1e-300))
    effect = direction_effects(AV, K, R)
    assert np.allclose(effect[live], (S*np.einsum("mi,mn,ni->i", U, G, V))[live], atol=1e-7*np.abs(G).sum()*top)
    assert effect.sum() == pytest.approx(np.trace(K),
        abs=1e-9*np.abs(G).sum()*top) and np.trace(K) == pytest.approx((G*D).sum(), abs=1e-9*np.abs(G).sum()*top)
    assert np.allclose(K, (s*B.T @ G) @ A.T)

@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_gauge(condition):
    A, B, x, G, rng = case(30, 40, 6, "normal", 0)
    def readings(A, B):
        h = x @ A.T
        S, BU, AV, R = singular_directions(A @ A.T, B.T @ B, 2.)
        H = h.T @ h/len(h)
        return S, direction_energy(BU, H, 2.), data_singular_values(B.T @ B, H, 2.), direction_effects(AV,
            B.T @ (2*G @ A.T), R)
    M, inverse = gauge(6, condition, rng)
    for a, b in zip(readings(A, B), readings(inverse @ A, B @ M)):
        assert np.allclose(a, b, rtol=1e-12*condition**2 + 1e-10, atol=1e-12*condition**2*np.abs(a).max())

def test_trim_errors_are_equalities():
    A, B, x, _, _ = case(30, 40, 6, "normal", 1)
    D, C = B @ A, x.T @ x/len(x)
    h = x @ A.T
    H = h.T @ h/len(h)
    S, BU, AV, R = singular_directions(A @ A.T, B.T @ B)
    V, tilde = A.T @ R, data_singular_values(B.T @ B, H)
    W = np.linalg.eigh(D @ C @ D.T)[1][:, ::-1]
    for k in range(7):
        plain, best = D @ V[:, :k] @ V[:, :k].T, W[:, :k] @ W[:, :k].T @ D
        error = lambda D_k: np.square(x @ (D - D_k).T).sum(1).mean()
        assert lost_beyond(direction_energy(BU, H))[k] == pytest.approx(error(plain), abs=1e-9)
        assert lost_beyond(tilde**2)[k] == pytest.approx(error(best), abs=1e-9)
        assert lost_beyond(tilde**2)[k] <= lost_beyond(direction_energy(BU, H))[k] + 1e-12

def test_batches_of_modules():
    rng = np.random.default_rng(0)
    A, B, s = rng.normal(size=(3, 4, 20)), rng.normal(size=(3, 15, 4)), np.array([1., 2., .5])
    GA, GB = A @ A.swapaxes(1, 2), B.swapaxes(1, 2) @ B
    whole = singular_directions(GA, GB, s)
    for i in range(3):
        for a, b in zip(whole, singular_directions(GA[i], GB[i], s[i])): assert np.allclose(a[i], b)

def test_ratio():
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 3, (400, 60)); a = b*rng.gamma(2, .5, (400, 60))
    R, error = zip(*(ratio_with_error(x, y) for x, y in zip(a, b)))
    assert np.std(R) == pytest.approx(np.mean(error), rel=.1)
    assert ratio_with_error([2.], [4.])[0] == .5 and np.isnan(ratio_with_error([2.], [4.])[1])

def test_random_share_is_the_mean_over_random_directions():
    rng = np.random.default_rng(0)
    A, B, x, _, _ = case(12, 16, 3, "normal", 2)
    D = B @ A
    draws = [np.square(x @ np.linalg.qr(rng.normal(size=(16, 16)))[0] @ D.T).sum(1).mean() for _ in range(3000)]
    assert np.mean(draws) == pytest.approx(np.square(D).sum()/16*np.square(x).sum(1).mean(), rel=.02)

# --- live models ------------------------------------------------------------------------------------------------------------------------------

def llama(dtype=torch.float32, **kw):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **kw)).to(dtype)

def adapted(model, **kw):
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(**dict(dict(r=3, lora_alpha=6, target_modules="all-linear"), **kw)))
    for name, p in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name: torch.nn.init.normal_(p, std=.05)
    return model

def batch(rows=4, tokens=9, seed=0, pad=True):
    g = torch.Generator().manual_seed(seed)
    ids, mask = torch.randint(0, 50, (rows, tokens), generator=g), torch.ones(rows, tokens, dtype=torch.long)
    if pad: mask[1, 6:] = 0; mask[2, :4] = 0
    return dict(input_ids=ids, attention_mask=mask, labels=torch.where(mask.bool(), ids, -100))

def inputs_of(model, b):
    "What each LoRA layer sees, unpadded"
    seen, handles, kept = {}, [], b["attention_mask"].bool()
    for f in read_factors(model):
        layer = model.get_base_model().get_submodule(f.name)
        handles.append(layer.register_forward_pre_hook(lambda m, args,
            name=f.name: seen.__setitem__(name, args[0].detach().reshape(*kept.shape, -1)[kept].double())))
    with torch.no_grad(), evaluating(model): model(**b)
    for o in handles: o.remove()
    return seen

@pytest.mark.parametrize("base", ["llama", "gpt2", "llama with biases"])
def test_functional_against_dense(base):
    model = {"llama": llama, "llama with biases": lambda: llama(attention_bias=True, mlp_bias=True),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4,
        n_positions=32))}[base]()
    kw = dict(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True) if base == "gpt2" else {}
    if "bias" in base:
        for n, p in model.named_parameters():
            if n.endswith("bias"): torch.nn.init.normal_(p)
    model = adapted(model, **kw).double().eval()
    batches = [batch(seed=i) for i in range(3)]
    found, table = measure_directions(Spectra.of(model), model, batches), None
    table = found.summary().set_index("module")
    seen = [inputs_of(model, b) for b in batches]
    for i, f in enumerate(read_factors(model)):
        layer = model.get_base_model().get_submodule(f.name)
        W = layer.get_base_layer().weight.detach()
        W, x, D = W.T if base == "gpt2" else W, torch.cat([o[f.name] for o in seen]), f.delta()
        S, tilde = torch.linalg.svdvals(D)[:f.r], torch.linalg.svdvals(x @ D.T)[:f.r]/len(x)**.5
        assert np.allclose(found.sigma[i], S, rtol=1e-8) and np.allclose(found.sigma_tilde[i], tilde, rtol=1e-8)
        row, energy = table.loc[f.name], lambda M: (x @ M.T).square().sum(1).mean().item()
        assert row.output_energy == pytest.approx(energy(D), rel=1e-9) and row.base_energy == pytest.approx(energy(W),
            rel=1e-6)
        assert row.output_energy_share == pytest.approx(energy(D)/energy(W), rel=1e-6) and row.tokens == len(x)
        assert row.random_share == pytest.approx((D.square().sum()/f.n*x.square().sum(1).mean()).item()/energy(W),
            rel=1e-6)

def test_effects_are_those_of_a_dense_update():
    "The gradient of a dense dW that is really in the forward, for every module and batch"
    model = adapted(llama(), lora_dropout=.5).double()
    batches = [batch(seed=i) for i in range(3)]
    found, effects = measure_directions(None, model, batches), []
    dense = {f.name: (f.delta()).requires_grad_() for f in read_factors(model)}
    base = model.get_base_model()
    with contextlib.ExitStack() as stack:
        for name, D in dense.items():
            layer = base.get_submodule(name)
            stack.callback(layer.register_forward_hook(lambda m, args, out, D=D,
                layer=layer: layer.get_base_layer()(args[0]) + args[0] @ D.T).remove)
        model.eval()
        for b in batches: effects.append(torch.autograd.grad(model(**b).loss, list(dense.values())))
    for i, f in enumerate(read_factors(model)):
        U, S, Vh = torch.linalg.svd(f.delta(), full_matrices=False)
        e = np.stack([(S*torch.einsum("mi,mn,in->i", U, g[i], Vh))[:f.r].numpy() for g in effects])
        assert np.allclose(found.effect[i], e.mean(0), rtol=1e-6, atol=1e-12) and np.allclose(found.fisher[i],
            (e**2).mean(0), rtol=1e-6, atol=1e-15)
        assert np.allclose(found.effect_error[i], e.std(0, ddof=1)/3**.5, rtol=1e-6, atol=1e-12)

def train(model, watch=None, dtype=None, steps=3, checkpointing=False):
    torch.manual_seed(5)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, sums, losses = torch.optim.AdamW(weights, lr=1e-2), [], []
    for i in range(steps):
        on = watch is not None and i != 1
        with watch if on else contextlib.nullcontext():
            if on: watch.reset()
            for j in range(2):
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                    loss = model(**batch(seed=2*i + j)).loss
                loss.backward()
                losses.append(loss.detach())
            if on: watch.take_gradients(); sums.append(watch.sums())
        optimizer.step(); optimizer.zero_grad()
    return [p.detach().clone() for p in weights] + losses + [torch.get_rng_state()], sums

@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_training_is_bit_for_bit_the_same(checkpointing, dtype):
    def fresh():
        model = adapted(llama(), lora_dropout=.1)
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
        return model
    plain, _ = train(fresh(), dtype=dtype)
    model = fresh()
    before = {n: {k: len(v) for k, v in vars(o).items() if k.endswith("hooks") or "hooks_" in k} for n,
        o in model.named_modules()}
    watched, sums = train(model, Watch(model), dtype)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert before == {n: {k: len(v) for k, v in vars(o).items() if k.endswith("hooks") or "hooks_" in k} for n,
        o in model.named_modules()}
    tokens = sum(int(batch(seed=s)["attention_mask"].sum()) for s in (0, 1))
    for o in sums[0]:
        assert o["tokens"].sum() == tokens and o["H"].shape == (2, 3, 3) and o["K"].shape == (1, 3,
            3) and o["rows"].shape == (8, 4) and o["H"].dtype == np.float64

@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_once(reentrant):
    model, other = adapted(llama()), adapted(llama())
    other.enable_input_require_grads()
    other.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=reentrant))
    found = []
    for m in (model, other):
        m.train()
        with Watch(m) as watch: m(**batch()).loss.backward(); watch.take_gradients()
        found.append(watch.sums())
    for a, b in zip(*found):
        for k in ("H", "K", "rows", "GA", "GB"): assert np.allclose(a[k], b[k], rtol=1e-5, atol=1e-12), k

def test_mask_from_the_watch_and_none():
    model, b = adapted(llama()).eval(), batch()
    with Watch(model) as watch: model(input_ids=b["input_ids"], attention_mask=b["attention_mask"])
    with Watch(model) as none: model(input_ids=b["input_ids"])
    assert watch.sums()[0]["tokens"][0] == b["attention_mask"].sum() and none.sums()[0]["tokens"][0] == b["input_ids"].numel()
    none.reset(); none.mask = b["attention_mask"]
    with none: model(input_ids=b["input_ids"])
    assert none.sums()[0]["tokens"][0] == b["attention_mask"].sum()

def test_generation_with_left_padding():
    model, b = adapted(llama()).eval(), batch()
    mask = torch.ones_like(b["input_ids"]); mask[1, :5] = 0
    with Watch(model) as watch:
        model.generate(input_ids=b["input_ids"], attention_mask=mask, max_new_tokens=3, do_sample=False,
            pad_token_id=0, eos_token_id=None)
    tokens = watch.sums()[0]["tokens"]
    assert tokens[0] == mask.sum() and all(t == 4 for t in tokens[1:])

def test_nan_in_padding_and_half_precision():
    model, b = adapted(llama()).eval(), batch()
    layer = next(iter(Watch(model).layers.values()))
    x = torch.randn(4, 9, 32)
    x[~b["attention_mask"].bool()] = torch.nan
    with Watch(model) as watch:
        watch._enter(None, (), b)
        layer(x)
    assert np.isfinite(watch.sums()[0]["H"]).all() and np.isfinite(watch.sums()[0]["rows"]).all()
    for dtype in (torch.bfloat16, torch.float16):
        half = adapted(llama()).to(dtype)
        exact = measure_directions(None, adapted(llama()), [batch()])
        rough = measure_directions(None, half, [batch()])
        assert np.allclose(rough.summary().output_energy_share, exact.summary().output_energy_share, rtol=.1)
        assert all(np.isfinite(o).all() for o in rough.effect)

def test_adapters_off_other_and_two():
    model, b = adapted(llama()), batch()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    with Watch(model) as watch:
        with model.disable_adapter(): model(**b)
    assert all(len(o["H"]) == 0 for o in watch.sums())
    with pytest.raises(RecipeError, match="not active"): measure_directions(None, model, [b], adapter="other")
    model.base_model.set_adapter(["default", "other"])
    assert len(measure_directions(None, model, [b], adapter="other").names) == 2
    model.set_adapter("default"); model.merge_adapter()
    with pytest.raises(RecipeError, match="merged"): measure_directions(None, model, [b])

def test_everything_is_left_as_it_was():
    model = adapted(llama(), lora_dropout=.3).train()
    model.get_base_model().model.layers[0].eval()
    for p in model.parameters(): p.requires_grad_(False)
    weights = [p.clone() for p in model.parameters()]
    modes, state = [o.training for o in model.modules()], torch.get_rng_state()
    measure_directions(None, model, [batch()])
    assert modes == [o.training for o in model.modules()] and torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters()) and all(torch.equal(a, b) for a,
        b in zip(weights, model.parameters()))
    with pytest.raises(KeyError), evaluating(model): raise KeyError
    assert modes == [o.training for o in model.modules()]

def test_what_is_skipped_is_said():
    model = adapted(llama(), target_modules=["q_proj", "embed_tokens"])
    watch = Watch(model)
    assert set(watch.skipped.values()) == {"an embedding"} and len(watch.layers) == 2
    dora = adapted(llama(), use_dora=True)
    with pytest.raises(RecipeError, match="no linear layer to watch"): Watch(dora)
    with pytest.raises(RecipeError): Watch(llama())

def test_frozen_B_uses_the_gradient_of_A():
    model = adapted(llama())
    with Watch(model) as watch: model(**batch()).loss.backward(); watch.take_gradients()
    for o in watch.layers.values(): o.lora_B["default"].weight.grad = None
    watch.take_gradients()
    for o in watch.sums(): assert np.allclose(o["K"][0], o["K"][1], rtol=1e-3, atol=1e-9)

def test_factor():
    model = adapted(llama())
    with Watch(model) as watch: model(**batch()).loss.backward()
    watch.take_gradients(); watch.take_gradients(.25)
    for o in watch.sums(): assert np.allclose(o["K"][0], 4*o["K"][1])

def test_without_labels_and_with_one_batch():
    model = adapted(llama())
    plain = {k: v for k, v in batch().items() if k != "labels"}
    found = measure_directions(None, model, [plain])
    assert np.isnan(np.concatenate(found.effect)).all() and np.isfinite(found.summary().standard_error).all() and np.isnan(np.concatenate(found.energy_error)).all()
    assert list(found.frame().columns[:4]) == ["module", "index", "sigma", "sigma_tilde"] and len(found.frame()) == 3*14
    assert "output energy" in repr(found) and "<table" in found._repr_html_()
    with pytest.raises(RecipeError, match="no token"): measure_directions(None, model, [])

def test_other_spectra_are_refused():
    model = adapted(llama())
    spectra = Spectra.of(model)
    measure_directions(spectra, model, [batch()])
    with torch.no_grad(): next(iter(Watch(model).layers.values())).lora_B["default"].weight.mul_(2)
    with pytest.raises(RecipeError, match="other singular values"): measure_directions(spectra, model, [batch()])

def test_untrained_adapter():
    model = get_peft_model(llama(), LoraConfig(r=3, target_modules="all-linear"))
    found = measure_directions(None, model, [batch(), batch(seed=1)])
    assert (found.summary().output_energy_share
        == 0).all() and not np.concatenate(found.effect).any() and (found.summary().k90 == 0).all()

def test_ranks_that_differ():
    model = adapted(llama(), rank_pattern={"q_proj": 5, "down_proj": 2}, use_rslora=True)
    found = measure_directions(Spectra.of(model), model, [batch()])
    assert {len(o) for o in found.sigma} == {2, 3, 5}
    assert np.allclose([np.square(o).sum() for o in found.sigma_tilde], found.summary().output_energy)

def test_sequence_of_routed_experts_counts_what_it_sees():
    x = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(2)])
    class Routed(torch.nn.Module):
        def __init__(self): super().__init__(); self.experts = x
        def forward(self, input_ids, attention_mask=None):
            flat = input_ids.reshape(-1, 8)
            return self.experts[0](flat[:5]), self.experts[1](flat[5:])
    model = get_peft_model(Routed(), LoraConfig(r=2, target_modules=["0", "1"]))
    with Watch(model) as watch: model(input_ids=torch.randn(3, 4, 8), attention_mask=torch.ones(3, 4))
    assert [o["tokens"].sum() for o in watch.sums()] == [5, 7]

@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_quantized_base(quant):
    from loranb.models.loading import load_base
    from loranb.models.lora import attach
    from loranb.data.batches import collate
    from loranb.data.encoding import prepare
    from loranb.core.recipe import Recipe
    recipe = Recipe(quant=quant, r=4, test_size=8)
    try: model, tok = load_base(recipe)
    except Exception as e: pytest.skip(f"{quant} does not load here: {e}")
    model = attach(model, recipe)
    for n, p in model.named_parameters():
        if "lora_B" in n: p.data = .02*torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    data = prepare(recipe, tok)
    found = measure_directions(Spectra.of(model), model,
        [collate(data.test[:4], tok.pad_token_id), collate(data.test[4:], tok.pad_token_id)])
    assert len(found.names) == 28 and (found.summary().output_energy_share
        > 0).all() and np.isfinite(np.concatenate(found.fisher)).all()
    if quant != "nf4": return
    with torch.no_grad(): model.eval()(**collate(data.test[:4], tok.pad_token_id))
    if is_repacked(model):
        with pytest.raises(RecipeError, match="repacked"):
            measure_directions(None, model, [collate(data.test[:4], tok.pad_token_id)])
        model = attach(load_base(recipe)[0], recipe)
    import bitsandbytes.functional as F
    name, o = next(iter(Watch(model).layers.items()))
    W = F.dequantize_4bit(o.base_layer.weight.data, o.base_layer.weight.quant_state).float()
    inside = inputs_of(model, collate(data.test[:4], tok.pad_token_id))[name].float()
    one = measure_directions(None, model, [collate(data.test[:4], tok.pad_token_id)])
    assert one.summary().base_energy[0] == pytest.approx((inside @ W.T).square().sum(1).mean().item(), rel=1e-2)
