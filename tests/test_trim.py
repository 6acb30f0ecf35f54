"Trimmed adapters: what is kept, the certificate against dense float64, and the way back through plain PEFT"
import json, math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from loranb.adapters.adapter import Adapter
from loranb.spectra.layouts import AdapterError, Factors
from loranb.spectra.factors import read_factors
from loranb.evaluate.watch import measure_directions
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.spectra.spectra import Spectra
from loranb.adapters.budget import rank_budget
from loranb.adapters.choosing import choose_directions, direction_scores
from loranb.adapters.trimming import keep_directions, residual_bounds, trim, trim_curve, wearing

def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2))

def adapted(base=llama, **kw):
    model = get_peft_model(base(), LoraConfig(**dict(dict(r=6, lora_alpha=12, target_modules="all-linear"), **kw)))
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name and p.ndim == 2: p.data = torch.randn_like(p)*torch.logspace(-1, -3, p.shape[1])
    return model

def batch(rows=4, tokens=9, seed=0):
    ids, mask = torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed)), torch.ones(rows,
        tokens, dtype=torch.long)
    mask[1, 6:] = 0
    return dict(input_ids=ids, attention_mask=mask, labels=torch.where(mask.bool(), ids, -100))

def parts(seed=0, n=3, r=6):
    g = torch.Generator().manual_seed(seed)
    return [Factors(f"layers.{i}.x", torch.randn(r, 20 + i, generator=g),
        torch.randn(30, r, generator=g)*torch.logspace(0, -i, r), 1.5) for i in range(n)]

# --- choosing ---------------------------------------------------------------------------------------------------------------------------------

def test_energy_keeps_the_share_and_no_more():
    fs = parts()
    spectra = Spectra.of(fs)
    for p in (.5, .9, .99, 1.):
        for s, o in zip(spectra.sigma, choose_directions(spectra, energy=p)[1]):
            e, k = s**2/np.sum(s**2), int(o.sum())
            assert (o[:k]).all() and e[:k].sum() >= p - 1e-9 and (k == 1 or e[:k - 1].sum() < p)

def test_uniform_and_budget():
    spectra = Spectra.of(parts())
    assert [int(o.sum()) for o in choose_directions(spectra, k=2)[1]] == [2, 2, 2]
    costs, last = [o["m"] + o["n"] for o in spectra.modules], None
    for budget in (1., 900, .7, 500, 200, .2, 60):
        kept = choose_directions(spectra, parameters=budget)[1]
        spent = sum(c*o.sum() for c, o in zip(costs, kept))
        assert spent <= (budget if budget > 1 else budget*sum(6*c for c in costs)) + .5
    small, large = choose_directions(spectra, parameters=.3)[1], choose_directions(spectra, parameters=.6)[1]
    assert all((s <= l).all() for s, l in zip(small, large))

@pytest.mark.parametrize("how", [{}, dict(energy=.9, k=2), dict(energy=0), dict(energy=1.5), dict(k=0), dict(k=1.5),
    dict(k=True), dict(parameters=0), dict(parameters=-1), dict(energy=.9, rule="x"), dict(energy=.9, rule="fisher"),
    dict(parameters=.5, rule="output"), dict(parameters=10)])
def test_wrong_asks(how):
    with pytest.raises(RecipeError): trim(parts(), **how)

def test_fisher_pools_by_effect():
    model = adapted()
    found = measure_directions(None, model, [batch(seed=i) for i in range(4)])
    rule, kept = choose_directions(Spectra.of(model), parameters=.3, functional=found)
    assert rule == "fisher"
    value = [f/(o["m"] + o["n"]) for f, o in zip(found.fisher, found.modules)]
    inside, outside = (np.concatenate([v[o == b] for v, o in zip(value, kept)]) for b in (True, False))
    assert inside.min() >= outside.max()
    rule, kept = choose_directions(Spectra.of(model), energy=.9, rule="output", functional=found)
    for e, o in zip(found.energy, kept):
        assert e[o].sum() >= .9*e.sum()*(1 - 1e-9) and e[o].min() >= e[~o].max(initial=0)
    plain = measure_directions(None, model, [{k: v for k, v in batch().items() if k != "labels"}])
    assert choose_directions(Spectra.of(model), parameters=.3, functional=plain)[0] == "energy"
    with pytest.raises(RecipeError, match="labels"):
        choose_directions(Spectra.of(model), parameters=.3, functional=plain, rule="fisher")

# --- the certificate --------------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=80, derandomize=True)
@given(m=st.integers(1, 30), n=st.integers(1, 30), r=st.integers(1, 8), k=st.integers(1, 8),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    s=st.sampled_from([1., -2., .25]), graded=st.booleans(), seed=st.integers(0, 2**31))
def test_residual_is_that_of_the_stored_tensors(m, n, r, k, dtype, s, graded, seed):
    g = torch.Generator().manual_seed(seed)
    f = Factors("x", torch.randn(r, n, generator=g),
        torch.randn(m, r, generator=g)*(torch.logspace(0, -3, r) if graded else 1), s)
    small = keep_directions(f, np.arange(r) < k, dtype)
    assert small.A.dtype == small.B.dtype == dtype and small.scaling == 1 and small.r == min(k, r)
    R = f.delta() - small.delta()
    S = torch.linalg.svdvals(R)
    top = torch.linalg.matrix_norm(f.delta(), 2).item()
    spectral, frobenius = residual_bounds(f, small)
    assert S[0].item() <= spectral*(1 + 1e-12) + 1e-13*top and R.norm().item() <= frobenius*(1 + 1e-12) + 1e-13*top
    assert spectral <= S[0].item()*1.01 + 1e-11*top and frobenius <= R.norm().item()*1.01 + 1e-10*top
    x = torch.randn(n, 40, generator=g, dtype=torch.float64)
    assert ((R @ x).norm(dim=0) <= spectral*x.norm(dim=0)*(1 + 1e-9) + 1e-12*top).all()

@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_certificate_covers_the_measured_error(dtype):
    model = adapted()
    batches = [batch(seed=i) for i in range(4)]
    found, inputs = measure_directions(None, model, batches), {}
    trimmed = trim(model, parameters=.4, functional=found, dtype=dtype)
    table = trimmed.summary().set_index("module")
    for f in trimmed.before:
        model.get_base_model().get_submodule(f.name).register_forward_pre_hook(lambda m, args,
            name=f.name: inputs.setdefault(name, []).append(args[0].detach()))
    with torch.no_grad():
        for b in batches: model.eval()(**b)
    kept = [b["attention_mask"].bool() for b in batches]
    for f, small in zip(trimmed.before, trimmed.parts):
        x = torch.cat([x[k] for x, k in zip(inputs[f.name], kept)]).double()
        error = (x @ (f.delta() - small.delta()).T).square().sum(1)
        row = table.loc[f.name]
        assert (error.sqrt() <= row.spectral*x.norm(dim=1)*(1 + 1e-9)).all()
        assert error.mean() <= row.output_error*(1 + 1e-5)
        assert row.output_error <= error.mean()*(1.05 if dtype is None else 2) + 1e-3*row.output_error + 1e-4
        assert row.of_update == pytest.approx(row.output_error/(x @ f.delta().T).square().sum(1).mean().item(),
            rel=1e-5)

# --- through plain PEFT -----------------------------------------------------------------------------------------------------------------------

def delta_k(f, kept):
    U, S, Vh = torch.linalg.svd(f.delta(), full_matrices=False)
    return U[:, :f.r][:, kept[:U.shape[1]]]*S[:f.r][kept[:len(S)]] @ Vh[:f.r][kept[:len(S)]]

CASES = dict(plain={}, rslora=dict(use_rslora=True),
    patterns=dict(rank_pattern={"q_proj": 3, "layers.1.mlp.down_proj": 5}, alpha_pattern={"v_proj": 3}),
    both=dict(use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 5}),
    named=dict(target_modules=["q_proj", "up_proj"]), regex=dict(target_modules=r".*\.(k|v)_proj"),
    one_layer=dict(target_modules=["q_proj"], layers_to_transform=[1]),
    saved=dict(target_modules=["q_proj"], modules_to_save=["lm_head"]))

@pytest.mark.parametrize("how", [dict(energy=.9), dict(k=2), dict(parameters=.2)])
@pytest.mark.parametrize("case", CASES)
def test_round_trip(case, how, tmp_path):
    model = adapted(**CASES[case])
    if case == "saved":
        with torch.no_grad(): model.get_base_model().lm_head.modules_to_save["default"].weight.add_(.1)
    model.save_pretrained(tmp_path/"full")
    for source in (tmp_path/"full", model):
        trimmed = trim(source, **how)
        path = trimmed.save(tmp_path/"small")
        config = json.loads((path/"adapter_config.json").read_text())
        assert config["r"] == config["lora_alpha"] and config["rank_pattern"] == config["alpha_pattern"] and not config["use_rslora"]
        again = PeftModel.from_pretrained(llama(), path)
        got = {f.name: f for f in read_factors(again)}
        kept = {f.name: o for f, o in zip(trimmed.before, trimmed.kept)}
        assert {n for n, f in got.items() if f.B.any()} == {n for n, o in kept.items() if o.any()}
        assert {n: f.r for n, f in got.items()} == {n: int(o.sum()) for n, o in kept.items() if o.any()}
        for f in trimmed.before:
            if f.name in got:
                assert got[f.name].scaling == 1 and torch.allclose(got[f.name].delta(), delta_k(f, kept[f.name]),
                    atol=1e-5*f.delta().norm())
        with torch.no_grad(), wearing(model, trimmed.parts):
            assert torch.allclose(model.eval()(**batch()).logits, again.eval()(**batch()).logits, atol=1e-5)
        assert [f.r for f in read_factors(path)] == [f.r for f in trimmed.parts if f.r]

def test_gpt2_and_nested_names(tmp_path):
    base = lambda: (torch.manual_seed(0), GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=12, n_head=4,
        n_positions=32)))[1]
    model = adapted(base, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    trimmed = trim(model, parameters=.2)
    again = PeftModel.from_pretrained(base(), trimmed.save(tmp_path/"small"))
    for f, g in zip([f for f in trimmed.parts if f.r], read_factors(again)):
        assert f.name == g.name and torch.allclose(f.delta(), g.delta())

def test_bfloat16_halves_and_is_certified(tmp_path):
    model = adapted()
    wide, narrow = (trim(model, energy=.99, dtype=d) for d in (None, "bfloat16"))
    assert narrow.size[1]*2 == wide.size[1] and narrow.parameters == wide.parameters
    assert {t.dtype for t in load_file(narrow.save(tmp_path/"b")/"adapter_model.safetensors").values()} == {torch.bfloat16}
    assert (narrow.summary().spectral > 0).all() and narrow.summary().relative_frobenius.max() < .15

def test_everything_kept_is_the_same_adapter(tmp_path):
    model = adapted()
    trimmed = trim(model, energy=1.)
    assert trimmed.summary().relative_frobenius.max() < 1e-6
    with torch.no_grad():
        here = model.eval()(**batch()).logits
        assert torch.allclose(PeftModel.from_pretrained(llama(),
            trimmed.save(tmp_path/"all")).eval()(**batch()).logits, here, atol=1e-5)

def test_adapter_trim(tmp_path):
    adapted().save_pretrained(tmp_path/"full")
    (tmp_path/"full"/"recipe.yaml").write_text("r: 6\n")
    trimmed = Adapter(tmp_path/"full").trim()
    small = trimmed.save(tmp_path/"small")
    assert isinstance(small, Adapter) and small.size < Adapter(tmp_path/"full").size and "r 6 -> " in repr(trimmed) and "Trimmed" in (small.path/"README.md").read_text()
    certificate = json.loads((small.path/"trim_certificate.json").read_text())
    again = small.trim(k=1).save(small.path.parent/"smaller")
    assert json.loads((again.path/"trim_certificate.json").read_text()) != certificate, "the second trim has its own"
    assert certificate["rule"] == "energy" and len(certificate["modules"]) == 14 and 0 < certificate["relative_frobenius"] < .1 and (small.path/"recipe.yaml").is_file()
    assert small.trim(k=1).save(small.path).config["r"] == 1 and not list(tmp_path.glob("*.old")) + list(tmp_path.glob("*.new"))

def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    trimmed = trim(adapted(), k=2)
    trimmed.save(tmp_path/"a")
    before = sorted(p.name for p in (tmp_path/"a").iterdir())
    import safetensors.torch
    monkeypatch.setattr(safetensors.torch, "save_file", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError): trimmed.save(tmp_path/"a")
    assert sorted(p.name for p in (tmp_path/"a").iterdir()) == before and [p.name for p in tmp_path.iterdir()] == ["a"]
    (tmp_path/"thesis").mkdir(); (tmp_path/"thesis"/"text.md").write_text("x")
    with pytest.raises(RecipeError, match="something else"): trimmed.save(tmp_path/"thesis")

@pytest.mark.parametrize("kw", [dict(use_dora=True), dict(lora_bias=True)])
def test_what_is_more_than_BA_is_refused(kw):
    with pytest.raises(AdapterError): trim(adapted(**kw), energy=.9)

def test_embeddings_are_refused(tmp_path):
    model = adapted(target_modules=["q_proj", "embed_tokens"])
    model.save_pretrained(tmp_path/"full")
    for source in (model, tmp_path/"full"):
        with pytest.raises(AdapterError, match="embed_tokens"): trim(source, energy=.9)

@pytest.mark.parametrize("kind", ["LoHa", "PiSSA", "conv"])
def test_other_methods_are_refused_or_become_plain(kind, tmp_path):
    from peft import LoHaConfig
    if kind == "conv":
        model = get_peft_model(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), LoraConfig(r=2, target_modules=["0"]))
        torch.nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
    else:
        config = LoHaConfig(r=2, target_modules=["q_proj"], init_weights=False) if kind == "LoHa" else LoraConfig(r=4,
            target_modules=["q_proj"], init_lora_weights="pissa")
        model = get_peft_model(llama(), config)
    with pytest.raises(AdapterError): trim(model, energy=.9)
    if kind != "LoHa": return
    model = model.double().eval()
    again = PeftModel.from_pretrained(llama(), trim(read_factors(model), energy=1.).save(tmp_path/"lora")).eval()
    with torch.no_grad(): assert torch.allclose(model(**batch()).logits, again(**batch()).logits.double(), atol=1e-4)

def test_file_named_adapter_and_pickle(tmp_path):
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"]), adapter_name="mine")
    for n, p in model.named_parameters():
        if "lora_B" in n: p.data = torch.randn_like(p)
    model.save_pretrained(tmp_path)
    for source in (model, tmp_path/"mine", tmp_path/"mine"/"adapter_model.safetensors"):
        trimmed = trim(source, k=2)
        assert {f.r for f in read_factors(PeftModel.from_pretrained(llama(), trimmed.save(tmp_path/"small")))} == {2}
    assert trim(model, k=2, functional=measure_directions(None, model, [batch()])).measure(model, [batch()])["kl"] > 0
    with pytest.raises(AdapterError): trim(tmp_path/"nothing", k=2)

def test_untrained_has_nothing_to_keep():
    with pytest.raises(RecipeError, match="B is zero"):
        trim(get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear")), energy=.99)

def test_figures_of_another_adapter_are_refused():
    found = measure_directions(None, adapted(), [batch()])
    other = adapted()
    with torch.no_grad():
        for n, p in other.named_parameters():
            if "lora_B" in n: p.mul_(2)
    with pytest.raises(RecipeError, match="other factors"): trim(other, energy=.9, functional=found)
    with pytest.raises(RecipeError, match="no figures"):
        trim(adapted(target_modules=["lm_head"]), energy=.9, functional=found)

# --- on the whole model -----------------------------------------------------------------------------------------------------------------------

def test_measure_against_two_models(tmp_path):
    model = adapted().train()
    trimmed, b = trim(model, k=2), batch()
    before = [p.clone() for p in model.parameters()]
    found = trimmed.measure(model, [b, batch(seed=1)])
    assert model.training and all(torch.equal(p, q) for p, q in zip(before, model.parameters())) and {f.r
        for f in read_factors(model)} == {6}
    again, kls, sizes = PeftModel.from_pretrained(llama(), trimmed.save(tmp_path/"small")).eval(), [], []
    model.eval()
    with torch.no_grad():
        for o in (b, batch(seed=1)):
            p, q = (m(input_ids=o["input_ids"], attention_mask=o["attention_mask"]).logits.double().log_softmax(-1)
                for m in (model, again))
            kl = (p.exp()*(p - q)).sum(-1)*o["attention_mask"]
            kls += kl.sum(1).tolist(); sizes += o["attention_mask"].sum(1).tolist()
        losses = [np.average([m(**o).loss.item() for o in (b, batch(seed=1))],
            weights=[(o["labels"][:, 1:] != -100).sum() for o in (b, batch(seed=1))]) for m in (model, again)]
    assert found["kl"] == pytest.approx(sum(kls)/sum(sizes),
        rel=1e-3) and found["kl_low"] <= found["kl"] <= found["kl_high"] and found["rows"] == 8
    assert (found["loss_before"], found["loss_after"]) == pytest.approx(tuple(losses), rel=1e-5)
    assert json.loads((trimmed.save(tmp_path/"small")/"trim_certificate.json").read_text())["measured"]["kl"] == found["kl"]
    unlabelled = trim(model, k=2).measure(model, [{k: v for k, v in b.items() if k != "labels"}])
    assert "kl_learned" not in unlabelled and unlabelled["kl"] > 0

def test_students_t():
    from loranb.adapters.trimming import _t95
    for n, t in ((4, 3.182), (6, 2.571), (11, 2.228), (31, 2.042), (10**6, 1.96)):
        assert _t95(n) == pytest.approx(t, rel=.04)

def test_curve():
    model = adapted()
    found = measure_directions(None, model, [batch(seed=i) for i in range(3)])
    for table in (trim_curve(model), trim_curve(model, functional=found),
            trim_curve(model, functional=found, rule="output")):
        assert (table.parameters.diff().dropna()
            <= 0).all() and table.share.iloc[0] <= 1 and (table.relative_frobenius.diff().dropna() >= -1e-9).all()
        assert (table.worst_case_gain.diff().dropna() >= -1e-9).all() and all(len(k) == 14 for k in table.k)
    table = trim_curve(model, functional=found)
    assert (table.expected_error.diff().dropna() >= -1e-9).all()
    i = 3
    trimmed = trim(model, parameters=float(table.share.iloc[i]) + 1e-9, functional=found)
    assert [f.r for f in trimmed.parts] == table.k.iloc[i] and trimmed.summary().of_update.mean() == pytest.approx(table.expected_error.iloc[i], rel=1e-3)

def test_rank_budget():
    model = adapted(use_rslora=True)
    found = measure_directions(None, model, [batch(seed=i) for i in range(4)])
    for share in (.5, .3):
        got = rank_budget(found, share)
        recipe = Recipe(**got)
        again = get_peft_model(llama(), LoraConfig(target_modules="all-linear", **got))
        fs, old = read_factors(again), read_factors(model)
        assert sum(f.r*(f.m + f.n) for f in fs) <= share*sum(f.r*(f.m + f.n) for f in old) + 1 and min(f.r
            for f in fs) >= 1 and recipe.r == max(f.r for f in fs)
        assert all(f.scaling == pytest.approx(g.scaling) for f, g in zip(fs, old))
    with pytest.raises(RecipeError, match="one direction in every module"): rank_budget(found, .05)


@pytest.mark.slow
def test_nothing_else_is_replaced(tmp_path):
    from loranb.train.run import Run
    run = Run(Recipe(max_steps=3, test_size=4, spectra_steps=0), tmp_path/"run").train()
    (tmp_path/"other").mkdir(); (tmp_path/"other/mine.txt").write_text("1"); (tmp_path/"file").write_text("1")
    for folder in ("other", "file", "run/adapter"):
        with pytest.raises(RecipeError, match="merge: .* something else than a model, and would be replaced"):
            run.adapter.merge(tmp_path/folder)
    for folder in ("other", "file"):
        with pytest.raises(RecipeError, match="save: .* something else than an adapter, and would be replaced"):
            run.adapter.trim(k=2).save(tmp_path/folder)
    assert (tmp_path/"other/mine.txt").read_text() == (tmp_path/"file").read_text() == "1" and (tmp_path/"run/adapter/adapter_config.json").is_file()
    run.adapter.merge(tmp_path/"merged"), run.adapter.merge(tmp_path/"merged")
