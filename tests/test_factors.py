"Factors of every kind of adapter against what PEFT itself does in float64: live and saved, damaged files, starts, sums, and what else was trained"
import copy, json, math, pickle, subprocess, sys

import numpy as np
import pytest
import torch

import loranb
from loranb.models import saved_adapters as files
from loranb.spectra.layouts import AdapterError, Factors, MadeFactors
from loranb.spectra.factors import read_factors, other_changes, starting_factors
from loranb.core.fields import RecipeError
from loranb.spectra.values import singular_values
from loranb.spectra.spectra import Spectra

pytestmark = pytest.mark.filterwarnings("ignore")

# --- models and adapters ---------------------------------------------------------------------------------------------------------------------

def llama(**kwargs):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, **kwargs))

def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32))

def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM
    return MixtralForCausalLM(MixtralConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4))

def net(*layers): return torch.nn.Sequential(*layers)

def shaken(model, seed=0):
    "Every trained number of every adapter becomes random"
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if any(o in name for o in ("lora_", "hada_", "lokr_", "vera_lambda", "modules_to_save",
                "trainable_tokens")) and "magnitude" not in name and "bias" not in name:
            p.data.copy_(torch.randn(p.shape, generator=g).mul(0.3))
    return model.eval()

def lora(base=None, **kwargs):
    from peft import LoraConfig, get_peft_model
    return get_peft_model(base or llama(), LoraConfig(**{**dict(r=4, lora_alpha=8,
        target_modules=["q_proj", "down_proj"]), **kwargs}))

def other(name, base=None, **kwargs):
    import peft
    return peft.get_peft_model(base or llama(),
        getattr(peft, name)(**{**dict(target_modules=["q_proj", "down_proj"]), **kwargs}))

def nf4(tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    llama().save_pretrained(tmp_path/"base")
    return AutoModelForCausalLM.from_pretrained(tmp_path/"base",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))

def of_dtype(model, dtype):
    for name, p in model.named_parameters():
        if "lora_" in name: p.data = p.data.to(dtype)
    return model

def convs():
    return net(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 12, (3, 2), stride=2, padding=1), torch.nn.Conv2d(4, 8, 1))

def peft(name, **kwargs):
    import peft
    if not hasattr(peft, name): pytest.skip(f"this PEFT has no {name}")
    return getattr(peft, name)(**kwargs)

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
PATTERNS = dict(rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 5}, use_rslora=True)

KINDS = {"lora": lambda t: lora(), "gaussian": lambda t: lora(init_lora_weights="gaussian"),
    "random start": lambda t: lora(init_lora_weights=False),
    "rslora, rank and alpha patterns": lambda t: lora(**PATTERNS),
    "all linear": lambda t: lora(target_modules="all-linear", alpha_pattern={r"mlp\..*": 3, "q_proj": 7}),
    "bfloat16": lambda t: of_dtype(lora(), torch.bfloat16), "float16": lambda t: of_dtype(lora(), torch.float16),
    "bias in B": lambda t: lora(llama(attention_bias=True), target_modules=["q_proj"], lora_bias=True),
    "whole modules and tokens": lambda t: lora(modules_to_save=["lm_head"], trainable_token_indices=[1, 2]),
    "GPT-2's Conv1D": lambda t: lora(gpt2(), target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    "embedding": lambda t: lora(target_modules=["embed_tokens", "q_proj"]),
    "Conv2d": lambda t: lora(convs(), target_modules=["0", "1", "2"]),
    "Conv2d in groups": lambda t: lora(net(torch.nn.Conv2d(4, 8, 3, groups=2)), target_modules=["0"]),
    "Conv1d and Conv3d": lambda t: lora(net(torch.nn.Conv1d(4, 6, 3), torch.nn.Conv3d(2, 5, 2)),
    target_modules=["0", "1"]), "attention of torch": lambda t: lora(net(torch.nn.MultiheadAttention(16, 2)),
    target_modules=["0"]), "DoRA": lambda t: lora(use_dora=True),
    "DoRA on an embedding": lambda t: lora(target_modules=["embed_tokens"], use_dora=True),
    "experts": lambda t: lora(mixtral(), target_modules=["q_proj"], target_parameters=EXPERTS[:1]),
    "two parameters of experts": lambda t: lora(mixtral(), target_modules=[], target_parameters=EXPERTS,
    rank_pattern={"experts.down_proj": 2}, use_rslora=True),
    "a parameter of a linear layer": lambda t: lora(target_modules=[], target_parameters=["q_proj.weight"]),
    "LoHa": lambda t: other("LoHaConfig", r=3, alpha=5), "LoHa of full rank": lambda t: other("LoHaConfig", r=9,
    alpha=5, rank_pattern={"down_proj": 2}), "LoHa on convolutions": lambda t: other("LoHaConfig", convs(), r=2,
    target_modules=["0", "1", "2"]), "LoHa on convolutions, Tucker": lambda t: other("LoHaConfig",
    net(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv1d(4, 8, 3)), r=2, target_modules=["0", "1"],
    use_effective_conv2d=True), "LoKr": lambda t: other("LoKrConfig", r=2, alpha=5),
    "LoKr, both decomposed": lambda t: other("LoKrConfig", r=2, decompose_both=True, decompose_factor=4),
    "LoKr, both whole": lambda t: other("LoKrConfig", r=64, alpha=5),
    "LoKr on convolutions": lambda t: other("LoKrConfig", convs(), r=1, target_modules=["0", "1", "2"]),
    "LoKr on convolutions, Tucker": lambda t: other("LoKrConfig",
    net(torch.nn.Conv2d(36, 36, 3), torch.nn.Conv1d(36, 36, 3)), r=2, target_modules=["0", "1"],
    use_effective_conv2d=True), "LoKr on a Conv1d, whole": lambda t: other("LoKrConfig", net(torch.nn.Conv1d(4, 8, 3)),
    r=8, target_modules=["0"]), "AdaLoRA": lambda t: other("AdaLoraConfig", init_r=6, target_r=2, lora_alpha=5,
    total_step=10), "orthogonal": lambda t: lora(init_lora_weights="orthogonal"),
    "eva": lambda t: lora(init_lora_weights="eva"), "MiCA": lambda t: lora(init_lora_weights="mica"),
    "KaSA": lambda t: lora(kasa_config=peft("KasaConfig")),
    "BD-LoRA": lambda t: lora(target_modules=["q_proj", "o_proj"],
    use_bdlora=peft("BdLoraConfig", target_modules_bd_a=["o_proj"], target_modules_bd_b=["q_proj"], nblocks=2)),
    "aLoRA": lambda t: lora(alora_invocation_tokens=[1, 2], task_type="CAUSAL_LM"),
    "VeLoRA": lambda t: lora(velora_config=peft("VeloraConfig", num_groups=4)),
    "MonteCLoRA": lambda t: lora(monteclora_config=peft("MontecloraConfig")),
    "tied to the head": lambda t: lora(llama(tie_word_embeddings=True), target_modules=["embed_tokens", "lm_head"],
    ensure_weight_tying=True), "replicated layers": lambda t: lora(target_modules=["q_proj"],
    layer_replication=[[0, 2], [1, 2]]), "NF4": lambda t: lora(nf4(t)),}

# --- what PEFT does, in float64 --------------------------------------------------------------------------------------------------------------

def reference(model, name):
    "The change of the module's map (m, n), as PEFT's forward pass makes it with all numbers in float64"
    path, _, expert = name.partition("[")
    root = model.base_model.model if hasattr(model, "base_model") and hasattr(model.base_model, "model") else model
    parameter = path.rpartition(".")[2] if "experts." in path else None
    layer = root.get_submodule(path.removesuffix(f".{parameter}") if parameter else path)
    while parameter and layer.parameter_name != parameter: layer = layer.base_layer
    if not hasattr(layer, "get_base_layer"): layer = root.get_submodule(path.replace("out_proj", "base_layer.out_proj"))
    kind, base = type(layer).__name__, layer.get_base_layer()
    if not any(o in str(type(base)) for o in ("bit",)): layer = copy.deepcopy(layer).double()
    if kind == "ParamWrapper":
        delta = layer.get_delta_weight("default")
        return (delta[int(expert[:-1])] if expert else delta).detach()
    if kind == "MultiheadAttention" or layer.__dict__.get("lora_magnitude_vector") or getattr(layer,
            "lora_magnitude_vector", None) or "bit" in str(type(base)) or "ALora" in str(getattr(layer, "lora_variant",
            "")):
        delta = layer.get_delta_weight("default").detach().double()
        return delta.T if kind == "Embedding" else delta
    inputs = unit_inputs(base)
    with torch.no_grad(): change = layer(inputs) - layer.base_layer(inputs)
    if getattr(layer, "lora_bias", {}).get("default"):
        change = change - layer.scaling["default"]*layer.lora_B["default"].bias.detach()
    return change.reshape(len(inputs), -1).T

def unit_inputs(base):
    if isinstance(base, torch.nn.Embedding): return torch.arange(base.num_embeddings)
    if hasattr(base, "kernel_size"):
        base.padding = tuple(0 for _ in base.kernel_size)
        shape = base.in_channels, *base.kernel_size
        return torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    n = getattr(base, "in_features", None) or base.weight.shape[0]
    return torch.eye(n, dtype=torch.float64)

def unpadded(model):
    for o in model.modules():
        if hasattr(o, "padding") and hasattr(o, "kernel_size"): o.padding = tuple(0 for _ in o.kernel_size)
    return model

def same(xs, ys):
    return len(xs) == len(ys) and all(x.name == y.name and math.isclose(x.scaling, y.scaling, rel_tol=1e-12)
        and x.A.equal(y.A) and x.B.equal(y.B) and x.method == y.method for x, y in zip(xs, ys))

@pytest.mark.parametrize("kind", KINDS)
def test_live_and_saved_equal_what_peft_does(kind, tmp_path):
    model = shaken(KINDS[kind](tmp_path))
    model.save_pretrained(tmp_path/"adapter")
    live, saved = read_factors(model), read_factors(tmp_path/"adapter")
    if kind == "AdaLoRA":
        assert all(abs(a.scaling/b.scaling - 1) < 1e-6 and a.A.equal(b.A) for a, b in zip(live, saved))
    elif kind == "attention of torch": assert sorted(f.name for f in live) == sorted(f.name for f in saved)
    else: assert same(live, saved), [live, saved]
    spectra = Spectra.of(tmp_path/"adapter")
    unpadded(model)
    for f, s, o in zip(saved, spectra.sigma, spectra.modules):
        T = reference(model, f.name)
        assert f.delta().shape == T.shape == (o["m"], o["n"])
        tolerance = 2e-3 if kind in ("bfloat16", "float16", "NF4") and T.dtype != torch.float64 else 1e-6
        assert (f.delta() - T).norm() <= tolerance*T.norm() > 0
        true = torch.linalg.svdvals(T)[:f.r].numpy()
        assert np.abs(s[:len(true)] - true).max() <= max(tolerance,
            o["error"])*true[0] and (s[len(true):] <= 1e-6*true[0]).all() and o["error"] < 1e-3

def test_the_number_of_saved_kinds(): assert len(KINDS) >= 20

def test_methods_and_what_is_noted():
    def first(model): return read_factors(shaken(model))[0]
    assert first(lora()).method == "LoRA" and first(lora()).note == "" and first(lora()).magnitude is None
    dora = first(lora(use_dora=True))
    assert dora.method == "DoRA" and dora.magnitude.shape == (64,) and "direction" in repr(dora)
    assert "MiCA" in repr(first(lora(init_lora_weights="mica"))) and "LoHa" in repr(first(other("LoHaConfig", r=2)))
    tied = read_factors(shaken(KINDS["tied to the head"](None)))
    assert [f.name for f in tied] == ["model.embed_tokens"] and tied[0].note == "tied to lm_head"
    model = shaken(lora())
    model.merge_adapter()
    assert all("merged" in f.note for f in read_factors(model))
    model.unmerge_adapter()
    assert not any(f.note for f in read_factors(model))

def test_vera_is_read_live_and_refused_from_a_file(tmp_path):
    model = shaken(other("VeraConfig", r=3))
    for f in read_factors(model):
        T = reference(model, f.name)
        assert f.method == "VeRA" and (f.delta() - T).norm() <= 1e-6*T.norm()
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="read it from the model"): read_factors(tmp_path)

def test_experts_are_views_and_named_by_parameter():
    model = shaken(KINDS["two parameters of experts"](None))
    fs = read_factors(model)
    assert [f.name for f in fs[:8]] == [f"model.layers.0.mlp.experts.{p}[{e}]" for p in ("gate_up_proj", "down_proj")
        for e in range(4)]
    outer = model.base_model.model.model.layers[0].mlp.experts
    assert fs[4].A.data_ptr() == outer.lora_A["default"].weight.data_ptr() and (fs[4].m, fs[4].n, fs[4].r) == (32, 48,
        2)

def test_fused_experts_are_noted():
    model = shaken(lora(mixtral(), target_modules=[], target_parameters=EXPERTS[:1]))
    B = model.base_model.model.model.layers[0].mlp.experts.lora_B["default"].weight.data.view(96, 4, 4)
    B[:48, 2:] = B[48:, :2] = 0
    notes = [f.note for f in read_factors(model)]
    assert notes[0] == "two fused blocks of rank 2" and notes[-1] == ""

def test_kronecker_values_come_from_the_small_sides():
    g = torch.Generator().manual_seed(0)
    from loranb.spectra.layouts import factors_of
    t = dict(lokr_w1=torch.randn(64, 64, generator=g), lokr_w2=torch.randn(172, 64, generator=g))
    f, = factors_of("up_proj", t, 2.)
    assert (f.m, f.n, f.r) == (11008, 4096, 4096) and isinstance(f, MadeFactors)
    f.make = None  # would take half a gigabyte
    s = Spectra.of([f])[0]
    one, two = (torch.linalg.svdvals(t[o].double()) for o in ("lokr_w1", "lokr_w2"))
    assert np.allclose(s, 2*np.sort(np.outer(one, two).ravel())[::-1], rtol=1e-6)

# --- several adapters ------------------------------------------------------------------------------------------------------------------------

def several():
    from peft import LoraConfig
    model = lora()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["v_proj", "q_proj"]))
    return shaken(model)

def test_each_of_several_adapters(tmp_path):
    model = several()
    assert [f.name[-6:] for f in read_factors(model, "other")] == ["q_proj", "v_proj"]*2 and read_factors(model,
        "other")[0].r == 2 and len(read_factors(model)) == 4
    model.save_pretrained(tmp_path)
    assert same(read_factors(tmp_path, "other"), read_factors(model, "other")) and same(read_factors(tmp_path),
        read_factors(model))
    with pytest.raises(RecipeError, match="'third' is not in this model; it has 'default', 'other'"):
        read_factors(model, "third")

def test_active_adapters_add_up(tmp_path):
    model = several()
    assert same(read_factors(model, "active"), read_factors(model))
    model.base_model.set_adapter(["default", "other"])
    both = {f.name: f for f in read_factors(model, "active")}
    q = both["model.layers.0.self_attn.q_proj"]
    assert len(both) == 6 and q.r == 6 and q.method == "LoRA+LoRA" and both["model.layers.0.self_attn.v_proj"].r == 2
    T = reference(model, q.name)
    assert (q.delta() - T).norm() < 1e-6*T.norm()
    assert np.allclose(Spectra.of(model, "active")[q.name], torch.linalg.svdvals(T)[:6], rtol=1e-5)
    model.save_pretrained(tmp_path)
    assert all(np.allclose(a, b) for a, b in zip(Spectra.of(tmp_path, ["default", "other"]).sigma,
        Spectra.of(model, "active").sigma))
    model.base_model.disable_adapter_layers()
    with pytest.raises(AdapterError, match="no adapter of this model is active"): read_factors(model, "active")

def test_the_only_adapter_needs_no_name():
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]), adapter_name="french")
    assert same(read_factors(model), read_factors(model, "french"))

def test_other_ways_to_an_adapter(tmp_path):
    from peft import LoraConfig, inject_adapter_in_model
    model = llama()
    model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    model.save_pretrained(tmp_path)
    assert same(read_factors(tmp_path), read_factors(model)) and len(read_factors(model)) == 4
    injected = inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]), llama())
    assert [f.name for f in read_factors(injected)] == [f.name for f in read_factors(model)]

# --- starts ----------------------------------------------------------------------------------------------------------------------------------

def loftq(): return lora(init_lora_weights="loftq", loftq_config=dict(loftq_bits=4, loftq_iter=1))

STARTED = {"pissa": lambda: lora(init_lora_weights="pissa"),
    "pissa_niter_4": lambda: lora(init_lora_weights="pissa_niter_4"), "olora": lambda: lora(init_lora_weights="olora")}

def nudged(model, size=1e-3):
    g = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" in name: p.data += size*torch.randn(p.shape, generator=g)
    return model

@pytest.mark.parametrize("kind", STARTED)
def test_the_learned_part_of_what_starts_from_the_weight(kind, tmp_path):
    original = {k: v.double() for k, v in llama().state_dict().items()}
    model = STARTED[kind]()
    start = starting_factors(model)
    model.save_pretrained(tmp_path/"start")
    with pytest.raises(AdapterError, match=f"{kind}.*not zero at the start"): read_factors(model)
    nudged(model)
    model.save_pretrained(tmp_path/"end")
    with pytest.raises(AdapterError, match=kind): read_factors(tmp_path/"end")
    for s in (start, tmp_path/"start"):
        for source in (model, tmp_path/"end"):
            for f in read_factors(source, start=s):
                layer = model.base_model.model.get_submodule(f.name)
                A, B = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
                now, before = (layer.base_layer.weight.double() + layer.scaling["default"]*B @ A,
                    original[f"{f.name}.weight"])
                # the base itself was rounded
                assert f.r == 8 and (f.delta() - (now - before)).norm() < 1e-4*f.delta().norm()
                then = next(o for o in start if o.name == f.name)
                exact = f.scaling*(B @ A - then.B.double() @ then.A.double())
                assert (f.delta() - exact).norm() <= 1e-10*exact.norm()
                values, bound = singular_values(f.A, f.B, f.scaling)
                assert (values - torch.linalg.svdvals(exact)[:8]).abs().max() <= max(1e-9, bound)*values[0]
    whole = read_factors(model, start="zero")[0]
    assert whole.r == 4 and whole.delta().norm() > 10*read_factors(model, start=start)[0].delta().norm()
    assert Spectra.of(model, start=start).modules[0]["method"] == "LoRA since its start" and np.isnan(Spectra.of(model,
        start=start).summary().participation_null).all()

def test_an_adapter_that_peft_converted_is_plain_lora(tmp_path):
    model = lora(init_lora_weights="pissa")
    start = starting_factors(model)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path/"start")
    model.peft_config["default"].init_lora_weights = "pissa"
    nudged(model)
    learned = read_factors(model, start=start)
    model.save_pretrained(tmp_path/"lora", path_initial_model_for_weight_conversion=str(tmp_path/"start"))
    for f, l in zip(read_factors(tmp_path/"lora"), learned):
        assert (f.name, f.r, f.method) == (l.name, 8, "LoRA") and (f.delta() - l.delta()).norm() < 1e-6*l.delta().norm()
    for a, b, e in zip(Spectra.of(tmp_path/"lora").sigma, Spectra.of(learned).sigma, Spectra.of(tmp_path/"lora").error):
        assert np.abs(a - b).max() <= max(e, 1e-6)*a[0]

def test_orthogonal_starts_at_zero():
    assert max(f.delta().abs().max() for f in read_factors(lora(init_lora_weights="orthogonal"))) < 1e-6

def test_a_checkpoint_is_a_start_too(tmp_path):
    model = shaken(lora())
    model.save_pretrained(tmp_path/"10")
    nudged(model)
    change = read_factors(model, start=tmp_path/"10")[0]
    assert change.method == "LoRA since its start" and change.r == 8
    with pytest.raises(AdapterError, match="v_proj is not in the start"):
        read_factors(shaken(lora(target_modules=["v_proj", "q_proj"])), start=tmp_path/"10")

# --- beside the products ---------------------------------------------------------------------------------------------------------------------

def test_others_live_and_saved(tmp_path):
    model = lora(llama(attention_bias=True), target_modules=["q_proj"], modules_to_save=["lm_head"],
        trainable_token_indices=[1, 2], lora_bias=True, bias="all", use_dora=False)
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight[0] += 1
        model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].bias += 0.5
    live = {(o["name"], o["what"]): o for o in other_changes(model)}
    assert math.isclose(live["lm_head.weight", "whole module"]["norm"], 8, rel_tol=1e-6) and live["model.embed_tokens",
        "tokens"]["norm"] == 0
    assert math.isclose(live["model.layers.0.self_attn.q_proj", "bias of B"]["norm"], 2*0.5*8, rel_tol=1e-6)
    assert "model.layers.0.self_attn.k_proj.bias" in {o["name"] for o in other_changes(model)}
    model.save_pretrained(tmp_path)
    what = {o["what"] for o in other_changes(tmp_path)}
    assert {"whole module", "tokens", "bias"} <= what and all(o["norm"] is None for o in other_changes(tmp_path))
    spectra = Spectra.of(model)
    assert "not shown: " in repr(spectra) and "1 tokens" in repr(spectra) and spectra.others == other_changes(model)
    assert "whole module" in repr(Spectra.of(tmp_path))
    del model
    import gc; gc.collect()
    assert spectra.others == []  # spectra do not keep a model alive

def test_dora_lengths_are_listed(tmp_path):
    model = lora(use_dora=True)
    assert sum(o["what"] == "lengths of rows (DoRA)" for o in other_changes(model)) == 4
    model.save_pretrained(tmp_path)
    assert sum(o["what"] == "lengths of rows (DoRA)" and o["shape"] == (64,) for o in other_changes(tmp_path)) == 4
    assert repr(Spectra.of(model)).endswith("; DoRA; not shown: 4 lengths of rows (DoRA)")

# --- refusals --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["IA3", "OFT", "BOFT", "PROMPT_TUNING", "TRAINABLE_TOKENS"])
def test_other_adapters_are_refused_live_and_saved(tmp_path, kind):
    import peft
    config = dict(IA3=lambda: peft.IA3Config(feedforward_modules=[], target_modules=["k_proj"]),
        OFT=lambda: peft.OFTConfig(oft_block_size=4, target_modules=["q_proj"]),
        BOFT=lambda: peft.BOFTConfig(target_modules=["q_proj"]),
        PROMPT_TUNING=lambda: peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        TRAINABLE_TOKENS=lambda: peft.TrainableTokensConfig(token_indices=[1]))[kind]()
    model = peft.get_peft_model(llama(), config)
    with pytest.raises(AdapterError, match=f"type {kind} is not supported"): read_factors(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=f"type {kind} is not supported"): read_factors(tmp_path)

def test_an_unknown_variant_is_refused():
    model = shaken(lora())
    class Tomorrow: pass
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_variant["default"] = Tomorrow()
    with pytest.raises(AdapterError, match=r"variant Tomorrow is not supported \(found in "
            r"model.layers.0.self_attn.q_proj\)"):
        read_factors(model)

def test_something_that_is_no_adapter():
    assert issubclass(AdapterError, RecipeError) and loranb.AdapterError is AdapterError
    with pytest.raises(AdapterError, match="LlamaForCausalLM without an adapter"): read_factors(llama())
    with pytest.raises(AdapterError, match="no folder 'nowhere'"): read_factors("nowhere")
    with pytest.raises(AdapterError, match="without an adapter"): read_factors(None)
    model = lora()
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.data = torch.empty(0)
    with pytest.raises(AdapterError, match="not whole here"): read_factors(model)

def test_live_details():
    model = lora()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.scale_layer(3.)
    assert read_factors(model)[0].scaling == 6. and read_factors(model)[1].scaling == 2.
    f = read_factors(model)[0]
    with torch.no_grad(): layer.lora_B["default"].weight.fill_(2)
    assert (f.B == 2).all() and not f.B.requires_grad and f.A.data_ptr() == layer.lora_A["default"].weight.data_ptr()
    wrapped = torch.nn.DataParallel(model)
    wrapped.peft_config = model.peft_config
    assert [f.name for f in read_factors(wrapped)] == [f.name for f in read_factors(torch.compile(model))] == [f.name
        for f in read_factors(model)]

# --- the Hub ---------------------------------------------------------------------------------------------------------------------------------

def test_a_name_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    model = shaken(lora())
    model.save_pretrained(tmp_path)
    asked = []
    def download(name, file):
        asked.append((name, file))
        if not (tmp_path/file).exists(): raise EntryNotFoundError("404")
        return str(tmp_path/file)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: type("M", (), dict(size=1000)))
    assert same(read_factors("someone/adapter"), read_factors(model)) and asked == [("someone/adapter",
        "adapter_config.json"), ("someone/adapter", "adapter_model.safetensors")]
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: type("M", (), dict(size=10**12)))
    with pytest.raises(AdapterError, match="on the Hub holds 931.3 GiB"): read_factors("someone/adapter")
    (tmp_path/"adapter_model.safetensors").unlink()
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: type("M", (), dict(size=None)))
    with pytest.raises(AdapterError, match="has no adapter_config.json with an adapter_model.safetensors"):
        read_factors("someone/adapter")
    def gone(name, file): raise LocalEntryNotFoundError("offline")
    monkeypatch.setattr(hub, "hf_hub_download", gone)
    with pytest.raises(AdapterError, match="no folder 'someone/adapter' here, and the Hub cannot be reached"):
        read_factors("someone/adapter")

def test_the_cache_of_the_hub_without_a_connection(tmp_path, monkeypatch):
    code = "from loranb.spectra.factors import read_factors; print(len(read_factors('someone/adapter')))"
    commit = tmp_path/"hub"/"models--someone--adapter"/"snapshots"/"abc"
    shaken(lora()).save_pretrained(commit)
    (commit.parents[1]/"refs").mkdir()
    (commit.parents[1]/"refs"/"main").write_text("abc")
    import os
    env = dict(os.environ, HF_HUB_CACHE=str(tmp_path/"hub"), HF_HUB_OFFLINE="1")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert out.stdout.strip() == "4", out.stderr
    out = subprocess.run([sys.executable, "-c", code.replace("someone", "nobody")], capture_output=True, text=True,
        env=env)
    assert "no folder 'nobody/adapter' here, and the Hub cannot be reached" in out.stderr

# --- damaged files: each entry damages a good folder; the message must say what is wrong ------------------------------------------------------

def config_with(**kwargs):
    def do(folder):
        path = folder/"adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | kwargs))
    return do

def tensors_with(change):
    def do(folder):
        from safetensors.torch import load_file, save_file
        path = folder/"adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors, next(k for k in sorted(tensors) if "lora_B" in k))
        save_file(tensors, path)
    return do

def header_with(change):
    def do(folder):
        path = folder/"adapter_model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = change(json.loads(data[8:8 + length]))
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length:])
    return do

def entry_with(**kwargs):
    def change(header):
        name = next(k for k in header if "lora_B" in k)
        return header | {name: header[name] | kwargs}
    return header_with(change)

def setitem(value): return lambda tensors, key: tensors.__setitem__(key, value(tensors[key]))

def as_pickle(folder):
    (folder/"adapter_model.safetensors").unlink()
    (folder/"adapter_model.bin").write_bytes(pickle.dumps({}))

def torch_pickle(folder): torch.save({"a": torch.zeros(3)}, folder/"adapter_model.safetensors")

def written(data): return lambda f: (f/"adapter_model.safetensors").write_bytes(data)

DAMAGES = [
    ("is not an adapter folder: it has no adapter_config.json", lambda f: (f/"adapter_config.json").unlink()),
    ("not readable JSON", lambda f: (f/"adapter_config.json").write_text("{")),
    ("not readable JSON", lambda f: (f/"adapter_config.json").write_text("["*100_000)),
    ("not readable JSON", lambda f: (f/"adapter_config.json").write_bytes(b"\xff\xfe{}")),
    ("does not hold a configuration", lambda f: (f/"adapter_config.json").write_text("[1]")),
    ("has no adapter_model.safetensors", lambda f: (f/"adapter_model.safetensors").unlink()),
    ("pickle", as_pickle),
    ("is a pickle, which can run code", torch_pickle),
    ("not a readable safetensors file.*is a pickle", written(pickle.dumps({"a": 1}))),
    ("header would take 1,000,000,000,000 bytes", written((10**12).to_bytes(8, "little") + b"{}")),
    ("header would take 0 bytes|is not a readable safetensors file", written(b"")),
    ("is not a readable safetensors file", written(b"\x02\0\0\0\0\0\0\0[]")),
    ("is not a readable safetensors file", written(b"\x05\0\0\0\0\0\0\0hello")),
    ("cut off", lambda f: (f/"adapter_model.safetensors").write_bytes((f/"adapter_model.safetensors").read_bytes()[:-100])),
    ("more than its .* bytes", entry_with(shape=[10**6, 10**6])),
    ("cut off or its header is wrong", entry_with(shape=[10**6, 10**6], data_offsets=[0, 4*10**12])),
    ("has type 'F32' and shape", entry_with(shape=[-4, -16])),
    ("has type 'F32' and shape", entry_with(shape=[10**60])),
    ("has type 'Q7'", entry_with(dtype="Q7")),
    ("has type \\['F32'\\]", entry_with(dtype=["F32"])),
    ("is no name of a tensor", header_with(lambda h: {k + "\n": v for k, v in h.items()})),
    ("target_parameters=3 is not a list of names", config_with(target_parameters=3)),
    ("target_modules_bd_a=", config_with(use_bdlora=dict(nblocks=2, target_modules_bd_a=[3]))),
    ("has no type, shape and place", entry_with(data_offsets=[0])),
    ("has no type, shape and place", header_with(lambda h: {k: 3 for k in h})),
    ("has no lora_B", tensors_with(lambda t, k: t.pop(k))),
    ("has no lora_A", tensors_with(lambda t, k: t.pop(k.replace("lora_B", "lora_A")))),
    ("do not fit together", tensors_with(setitem(lambda B: B[:, :2].contiguous()))),
    ("do not fit", tensors_with(setitem(lambda B: B[0].contiguous()))),
    ("do not fit", tensors_with(setitem(lambda B: B[None]))),
    ("not whole", tensors_with(setitem(lambda B: B[:0]))),
    ("says r=4, and lora_A has 3 rows", tensors_with(lambda t, k: t.__setitem__(k.replace("lora_B", "lora_A"), torch.zeros(3, 96)))),
    ("says r=4, and lora_A has 8 rows", tensors_with(lambda t, k: t.update({k.replace("lora_B", "lora_A"): torch.zeros(8, 96), k: torch.zeros(64, 8)}))),
    ("NaN", tensors_with(setitem(lambda B: B*torch.nan))),
    ("NaN or infinite", tensors_with(setitem(lambda B: B + torch.inf))),
    ("int8, not floating point", tensors_with(setitem(lambda B: B.to(torch.int8)))),
    ("holds no lora_A and lora_B", tensors_with(lambda t, k: t.clear())),
    ("lora_magnitude_vector .* does not fit", tensors_with(lambda t, k: t.__setitem__(k.replace("lora_B.weight", "lora_magnitude_vector"), torch.ones(3)))),
    ("A tensor 'lora_C.weight' is not known", tensors_with(lambda t, k: t.__setitem__(k.replace("lora_B", "lora_C"), torch.ones(3)))),
    ("twice", tensors_with(lambda t, k: t.__setitem__(k.replace("lora_B.weight", "lora_B.default.weight"), torch.ones(3)))),
    ("r=-1 for .* is not a positive whole number", config_with(r=-1)),
    ("r=0", config_with(r=0)),
    ("r=None", config_with(r=None)),
    ("r=4.5", config_with(r=4.5)),
    ("r=True", config_with(r=True)),
    ("r=1000000000000", config_with(r=10**12)),
    ("lora_alpha='eight'", config_with(lora_alpha="eight")),
    ("lora_alpha=nan", config_with(lora_alpha=math.nan)),
    ("alpha_pattern", config_with(alpha_pattern={"(": 2})),
    ("alpha_pattern.*can take forever", config_with(alpha_pattern={"(a+)+b": 2})),
    ("rank_pattern=\\[1\\]", config_with(rank_pattern=[1])),
    ("r=-3", config_with(rank_pattern={"q_proj": -3})),
    ("type None", config_with(peft_type=None)),
    ("Arrow is not supported", config_with(arrow_config={"top_k": 1})),
    ("QA-LoRA is not supported", config_with(use_qalora=True)),
    ("use_magic=True, which this loranb does not know, is not supported", config_with(use_magic=True)),
    ("tomorrow_config=.*does not know", config_with(tomorrow_config={"a": 1})),
    ("init_lora_weights='sunday', which", config_with(init_lora_weights="sunday")),
    ("init_lora_weights='loftq'.*not zero at the start", config_with(init_lora_weights="loftq")),
    ("init_lora_weights='lora_ga'", config_with(init_lora_weights="lora_ga")),
]

@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    shaken(lora()).save_pretrained(folder)
    return folder

@pytest.mark.parametrize("message, damage", DAMAGES, ids=[f"{i}-{m[:40]}" for i, (m, _) in enumerate(DAMAGES)])
def test_damaged_folders_give_one_sentence(tmp_path, good, message, damage):
    import shutil
    folder = shutil.copytree(good, tmp_path/"adapter")
    damage(folder)
    with pytest.raises(AdapterError, match=message) as e: read_factors(folder)
    assert len(str(e.value)) < 700 and "\n" not in str(e.value)

def test_random_damage_raises_nothing_else(tmp_path, good):
    import random, shutil
    rng, refused = random.Random(0), 0
    values = [None, -1, 0, 3, 10**30, math.nan, "x", "", [], {}, [1], {"a": 1}, True, 1.5, {"q_proj": None}, {"": 2},
        [["a"]]]
    for _ in range(400):
        folder = shutil.copytree(good, tmp_path/"w", dirs_exist_ok=True)
        path, config = folder/"adapter_model.safetensors", folder/"adapter_config.json"
        data = bytearray(path.read_bytes())
        how = rng.randrange(3)
        if how == 0: data[rng.randrange(8 + int.from_bytes(data[:8], "little"))] = rng.randrange(256)
        if how == 1: data = data[:rng.randrange(len(data))]
        path.write_bytes(data)
        if how == 2:
            c = json.loads(config.read_text())
            config.write_text(json.dumps(c | {rng.choice(list(c)): rng.choice(values)}))
        try: Spectra.of(folder).summary()
        except AdapterError as e: refused += "\n" not in str(e)
    assert refused > 200

def test_more_than_the_limit_is_refused_before_it_is_read(good, monkeypatch):
    monkeypatch.setattr(files, "LIMIT", 1000)
    monkeypatch.setattr(torch, "frombuffer", None)
    with pytest.raises(AdapterError, match="more than loranb.models.saved_adapters.LIMIT"): read_factors(good)

def test_a_terabyte_of_holes_takes_no_memory(tmp_path, good):
    import resource, shutil
    folder = shutil.copytree(good, tmp_path/"adapter")
    header = json.dumps({"m.lora_A.weight": dict(dtype="F32", shape=[4, 2**36], data_offsets=[0, 2**40])}).encode()
    with open(folder/"adapter_model.safetensors", "wb") as f:
        f.write(len(header).to_bytes(8, "little") + header)
        f.truncate(8 + len(header) + 2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AdapterError, match="1024.0 GiB of tensors, more than"): read_factors(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000

def test_a_file_without_its_configuration(good, tmp_path):
    import shutil
    assert same(read_factors(good/"adapter_model.safetensors"), read_factors(good))
    shutil.copy(good/"adapter_model.safetensors", tmp_path/"x.safetensors")
    with pytest.raises(AdapterError, match="has no adapter_config.json"): read_factors(tmp_path/"x.safetensors")
    (tmp_path/"x.bin").write_bytes(b"")
    with pytest.raises(AdapterError, match="is a pickle"): read_factors(tmp_path/"x.bin")

def test_reading_a_folder_needs_neither_peft_nor_transformers(good):
    code = (f"import sys; from loranb.spectra.spectra import Spectra; repr(Spectra.of({str(good)!r})); print([m for "
        "m in ('peft', 'transformers', 'pandas', 'huggingface_hub') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
