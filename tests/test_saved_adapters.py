"Adapters from strangers: patterns in bounded time, damaged folders, and what is put on a model"
import copy, json, random, re, shutil, signal

import pytest, torch
from safetensors.torch import load_file, save_file

import loranb
from loranb import Adapter
from loranb.core.fields import RecipeError
from loranb.core.patterns import match_pattern, match_whole
from loranb.core.recipe import Recipe
from loranb.models.saved_adapters import AdapterError, adapter_method, rank_major, read_adapter
from loranb.models.fused import fuse_layers
from loranb.models.hub import quiet_libraries
from loranb.models.lora import attach, load_adapter_on
from loranb.spectra.factors import read_factors

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def not_forever():
    "Five seconds for a case, twenty for all of a fuzz"
    def late(*_): raise TimeoutError("it hangs")
    kept = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, kept)


def llama(**more):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**dict(vocab_size=64, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2) | more)).eval()
    model.loranb_dtype = torch.float32
    return model


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=4)).eval()
    model.loranb_dtype = torch.float32
    return model


def saved(folder, model=None, **config):
    from peft import LoraConfig, get_peft_model
    g = torch.Generator().manual_seed(1)
    with quiet_libraries():
        lora = get_peft_model(model or llama(), LoraConfig(**dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"],
            task_type="CAUSAL_LM") | config)).eval()
        for n, p in lora.named_parameters():
            if "lora_" in n: p.data = torch.randn(p.shape, generator=g)/3
        lora.save_pretrained(folder)
    return lora


def changed(folder, **fields):
    path = folder/"adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def logits(model): return model(torch.arange(20)[None]).logits.detach()


# --- patterns --------------------------------------------------------------------------------------------------------

PEOPLE = [r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", r"^model\.layers\.\d+\.mlp\.(gate|up|down)_proj",
    r"^(?!.*vision).*(?:q_proj|k_proj)$", r"model\.layers\.([5-9]|1\d)\..*proj", r"(?:.*?(?:language|text).*?(?:self_attn"
    r"|attention|mlp).*?(?:q_proj|k_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|up_proj))"]
NAMES = [f"{a}.layers.{i}.{b}" for a in ("model", "model.vision_tower", "language_model.model") for i in (0, 5, 12)
    for b in ("self_attn.q_proj", "mlp.up_proj", "self_attn")] + ["lm_head", "x.decoder.block.0.SelfAttention.q", ""]


@pytest.mark.parametrize("pattern", PEOPLE)
def test_what_people_write_is_matched_as_python_matches_it(pattern):
    assert [match_whole(pattern, n) for n in NAMES] == [bool(re.fullmatch(pattern, n)) for n in NAMES]
    assert [match_pattern({pattern: 1}, n, 0) for n in NAMES] == [int(bool(re.match(rf"(.*\.)?({pattern})$", n)))
        for n in NAMES]


def random_pattern(rng, depth=0):
    atom = lambda: rng.choice(["a", "b", ".", r"\.", r"\d", "[^a]", "[ab0-3]", r"\w", r"\b", "^", "$", r"\W"])
    def part():
        kind = rng.randrange(7) if depth < 2 else 0
        if kind < 3: return atom()
        if kind == 3: return rng.choice(["a", ".", "[ab]", r"\d"]) + rng.choice(["*", "+", "?", "*?", "{2}", "{1,}", "{0,3}?"])
        inside = random_pattern(rng, depth + 1)
        return {4: f"({inside})?", 5: f"(?:{inside}|{random_pattern(rng, depth + 1)})", 6: f"(?!{atom()}b)"}[kind]
    return "".join(part() for _ in range(rng.randrange(1, 5)))


def test_random_patterns_are_matched_as_python_matches_them():
    rng, compared = random.Random(0), 0
    for _ in range(2000):
        pattern = random_pattern(rng)
        for text in ("".join(rng.choice("ab.0_ 7") for _ in range(rng.randrange(8))) for _ in range(4)):
            try: mine = match_whole(pattern, text)
            except RecipeError: continue
            assert mine == bool(re.fullmatch(pattern, text)), (pattern, text)
            compared += 1
    assert compared > 6000


@pytest.mark.parametrize("pattern", [".*"*9, "(a|a)*b", "(a*)*", "(?:(a|aa)+)+$", r"(.)\1", "(?i)a", "(?<=a)b", "a"*1001,
    "(?:a{0,9}){0,9}", "(?=(?=a))", "(" * 100])
def test_what_could_take_forever_or_is_not_read_is_refused(pattern):
    if pattern == "(a|a)*b": return match_whole(pattern, "a"*900)  # alternatives are walked at once
    with pytest.raises(RecipeError) as e: match_whole(pattern, "a"*60)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300


def test_the_longest_names_take_a_moment_only(): assert not match_whole(".*"*7 + "!", "a.b"*333)


# --- folders ---------------------------------------------------------------------------------------------------------

def test_what_is_put_on_a_model_is_what_was_saved(tmp_path):
    for i, more in enumerate((dict(), dict(target_modules=r".*\.(q|up)_proj", rank_pattern={r"layers\.1\..*q_proj": 2},
            alpha_pattern={r".*up_proj": 3.5}), dict(use_dora=True), dict(exclude_modules=r".*\.1\..*"),
            dict(modules_to_save=["lm_head"]), dict(target_modules=["embed_tokens", "q_proj"]), dict(use_rslora=True))):
        lora = saved(tmp_path/str(i), **more)
        fuse_layers(lora)
        back = load_adapter_on(llama(), tmp_path/str(i))
        assert logits(back).equal(logits(lora)), more
        assert all(p.dtype == torch.float32 for p in back.parameters() if p.requires_grad)


def test_a_mark_at_the_beginning_of_a_file_is_passed_over(tmp_path):
    saved(tmp_path)
    path = tmp_path/"adapter_config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Adapter(tmp_path).config["r"] == 4 and len(read_factors(tmp_path)) == 4
    assert adapter_of(load_adapter_on(llama(), tmp_path)) == 4


def adapter_of(lora): return sum(bool(getattr(m, "lora_A", None)) for m in lora.modules())


def test_broken_json_is_one_sentence_wherever_it_is_read(tmp_path):
    saved(tmp_path)
    (tmp_path/"adapter_config.json").write_text("{")
    for read in (lambda: Adapter(tmp_path).config, lambda: repr(Adapter(tmp_path)), lambda: read_factors(tmp_path),
            lambda: load_adapter_on(llama(), tmp_path)):
        with pytest.raises(AdapterError, match="is not readable JSON"): read()


def test_a_start_is_read_as_carefully(tmp_path):
    saved(tmp_path)
    tensors = tmp_path/"adapter_model.safetensors"
    torch.save(load_file(tensors), tmp_path/"adapter_model.bin")
    tensors.unlink()
    recipe = Recipe(model="somewhere", quant="none", r=4, target_modules=["q_proj", "v_proj"],
        adapter_name_or_path=str(tmp_path))
    with pytest.raises(RecipeError, match=r"adapter_name_or_path: .*holds a pickle \(adapter_model.bin\)"):
        attach(llama(), recipe)
    with pytest.raises(AdapterError, match="holds a pickle"): Adapter(tmp_path).size


ODD = {"r=1,000,000,000, but": dict(r=10**9), "is not a positive": dict(rank_pattern={"q_proj": 2.5}),
    r"rank_pattern\['q_proj'\]=1,000": dict(rank_pattern={"q_proj": 1000}), "repeats layers": dict(layer_replication=[[0, 9**9]]),
    "Megatron": dict(megatron_config={"a": 1}), "Arrow": dict(arrow_config={"top_k": 1}),
    "modules_to_save: .* is no name": dict(modules_to_save=["(a+)+"]), "layers_pattern: .* is no name": dict(layers_pattern=".*"),
    "target_modules: .*no list": dict(target_modules=3), "alpha_pattern: .*no table": dict(alpha_pattern=["q_proj"]),
    "exclude_modules: .*repeats 12 times": dict(exclude_modules=".*"*12 + "!"), "type XLORA is not": dict(peft_type="XLORA"),
    "type PROMPT_TUNING is not": dict(peft_type="PROMPT_TUNING"), "cannot be put on": dict(target_modules=["nothing"]),
    "cannot be put on .*task": dict(task_type="SAY_NICE"), "tensors fit no module": dict(target_modules=["q_proj"]),
    "cannot be put on .*size mismatch|size": dict(r=2), "enable_lora=.*does not know": dict(enable_lora=[True, False])}


@pytest.mark.parametrize("message", ODD)
def test_what_cannot_be_put_on_a_model_is_one_sentence(message, tmp_path):
    saved(tmp_path)
    changed(tmp_path, **ODD[message])
    with pytest.raises(AdapterError, match=message) as e: load_adapter_on(llama(), tmp_path)
    assert "\n" not in str(e.value) and len(str(e.value)) < 600


@pytest.mark.parametrize("kind", ["LORA", "ADALORA", "LOHA", "LOKR", "VERA"])
def test_every_field_of_this_peft_is_known_or_refused_by_name(kind):
    import dataclasses, peft
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    plain = {f.name: f.default for f in dataclasses.fields(config) if f.default is not dataclasses.MISSING}
    adapter_method(plain | dict(peft_type=kind), "x")
    for name in ("turned", "use_magic", "lora_C_layout"):
        with pytest.raises(AdapterError, match=f"{name}=True, which this loranb does not know"):
            adapter_method(dict(peft_type=kind, **{name: True}), "x")


VALUES = [None, -1, 0, 3, 10**30, float("nan"), "x", "", ".*", "(a+)+", [], {}, [1], {"a": 1}, True, 1.5, {"q_proj": None},
    {"": 2}, [["a"]], {".*"*12: 3}, "../..", ["q_proj"]*3, {"q_proj": 10**9}, [[0, 2], [1, 2]], "pissa", "eva"]


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_read_or_refused_in_one_sentence(seed, tmp_path):
    rng, base, counts = random.Random(seed), llama(num_hidden_layers=1), {True: 0, False: 0}
    saved(tmp_path/"good", copy.deepcopy(base))
    fields = [*json.loads((tmp_path/"good"/"adapter_config.json").read_text()), "lora_B_layout", "use_magic"]
    for _ in range(80):
        folder = shutil.copytree(tmp_path/"good", tmp_path/"w", dirs_exist_ok=True)
        tensors = folder/"adapter_model.safetensors"
        data = bytearray(tensors.read_bytes())
        how = rng.randrange(4)
        if how == 0: data[rng.randrange(8 + int.from_bytes(data[:8], "little"))] = rng.randrange(256)
        if how == 1: data = data[:rng.randrange(len(data))]
        tensors.write_bytes(data)
        if how > 1: changed(folder, **{rng.choice(fields): rng.choice(VALUES) for _ in range(how - 1)})
        for read in (lambda: read_factors(folder), lambda: load_adapter_on(copy.deepcopy(base), folder)):
            try: counts[bool(read())] += 1
            except AdapterError as e: counts[False] += 1; assert "\n" not in str(e) and len(str(e)) < 700, e
    assert counts[True] > 20 and counts[False] > 40, counts


# --- the experts of one tensor ---------------------------------------------------------------------------------------

def test_experts_in_groups_are_the_same_adapter(tmp_path):
    lora = saved(tmp_path/"a", mixtral(), target_modules=["q_proj"], target_parameters=["experts.down_proj"])
    tensors = load_file(tmp_path/"a"/"adapter_model.safetensors")
    grouped = {k: in_groups(X, 4) if "experts" in k and "lora_B" in k else X for k, X in tensors.items()}
    shutil.copytree(tmp_path/"a", tmp_path/"b")
    save_file(grouped, tmp_path/"b"/"adapter_model.safetensors", metadata=dict(format="pt"))
    changed(tmp_path/"b", lora_B_layout="grouped_by_expert")
    assert any(not grouped[k].equal(tensors[k]) for k in tensors)
    for x, y in zip(read_factors(tmp_path/"a"), read_factors(tmp_path/"b")): assert x.A.equal(y.A) and x.B.equal(y.B)
    assert logits(load_adapter_on(mixtral(), tmp_path/"b")).equal(logits(lora))


def in_groups(B, E):
    mine = B.reshape(len(B), -1, E).transpose(1, 2).reshape(len(B), -1).contiguous()
    assert rank_major(mine, E).equal(B)
    return mine


# --- every method, file and live --------------------------------------------------------------------------------------

METHODS = dict(LoraConfig=dict(lora_alpha=8), LoHaConfig=dict(alpha=5), LoKrConfig=dict(alpha=5, decompose_factor=4))
KEYS = ["q_proj", r".*\.1\..*", "layers.0.self_attn.v_proj", r"(q|up)_proj", r"^model\.layers\.\d+\.mlp\.up_proj",
    r"[qv]_proj", "mlp.up_proj"]


@pytest.mark.parametrize("seed", range(24))
def test_file_and_model_agree_whatever_the_patterns(seed, tmp_path):
    import peft
    rng = random.Random(seed)
    name = rng.choice([*METHODS])
    # in the order of the alphabet, in which PEFT writes them
    drawn = lambda low: {k: rng.randrange(low, 7) for k in sorted(rng.sample(KEYS, rng.randrange(4)))}
    more = dict(use_rslora=rng.random() < .5, use_dora=rng.random() < .3) if name == "LoraConfig" else {}
    config = getattr(peft, name)(r=rng.randrange(1, 6), rank_pattern=drawn(1), alpha_pattern=drawn(1),
        target_modules=["q_proj", "v_proj", "up_proj"], **METHODS[name], **more)
    with quiet_libraries(): model = peft.get_peft_model(llama(), config)
    g = torch.Generator().manual_seed(seed)
    for n, p in model.named_parameters():
        if any(o in n for o in ("lora_A", "lora_B", "hada_", "lokr_")): p.data = torch.randn(p.shape, generator=g)
    model.save_pretrained(tmp_path)
    live, file = read_factors(model), read_factors(tmp_path)
    assert [f.name for f in live] == [f.name for f in file] and len(live) == 6
    for x, y in zip(live, file): assert torch.allclose(x.delta(), y.delta(), rtol=1e-10), (x, y)
    back = read_factors(load_adapter_on(llama(), tmp_path))
    for x, y in zip(back, file): assert torch.allclose(x.delta(), y.delta(), rtol=1e-10), (x, y)


def test_patterns_whose_order_decides_are_refused_before_the_training():
    recipe = Recipe(model="x", quant="none", r=4, target_modules=["q_proj"])
    attach(llama(), recipe.replace(rank_pattern={r".*\.1\..*": 2, "q_proj": 3}))
    attach(llama(), recipe.replace(rank_pattern={"q_proj": 3, r".*\.1\..*": 3}))
    for field in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(RecipeError, match=f"{field}: 'q_proj' and .* all fit model.layers.1.self_attn.q_proj"):
            attach(llama(), recipe.replace(**{field: {"q_proj": 3, r".*\.1\..*": 2}}))


def test_a_download_is_bounded(monkeypatch):
    import huggingface_hub as hub
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a: pytest.fail("it was fetched"))
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: type("M", (), dict(size=10**9)))
    with pytest.raises(AdapterError, match="0.9 GiB in adapter_config.json"): read_adapter("someone/adapter")


def test_names_stand_where_they_stood():
    from loranb import models, spectra
    assert spectra.read_config is models.read_config and spectra.AdapterError is models.AdapterError is loranb.AdapterError


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x4b50])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length, tmp_path):
    import pickle
    from loranb.models.saved_adapters import read_tensors, tensor_header
    save_file({"x": torch.ones(2)}, tmp_path/"x")
    data = (tmp_path/"x").read_bytes()
    size = int.from_bytes(data[:8], "little")
    (tmp_path/"x").write_bytes(length.to_bytes(8, "little") + data[8:8 + size].ljust(length) + data[8 + size:])
    assert read_tensors(tmp_path/"x")["x"].equal(torch.ones(2))
    for protocol in range(2, 6):
        (tmp_path/"x").write_bytes(pickle.dumps(dict(a=[1]*99), protocol))
        with pytest.raises(AdapterError, match="it is a pickle"): tensor_header(tmp_path/"x")
