"Where a model comes from, what it is loaded as, and what the Hub may answer."
import fnmatch, warnings
from types import SimpleNamespace

import huggingface_hub, pytest, torch
from huggingface_hub import errors

from loranb.models import petit
from loranb.models.quantization import compute_dtype, exact_4bit, is_repacked, quantized_layers
from loranb.models.hub import FILES, find_model
from loranb.models.loading import load_base
from loranb.models.lora import attach
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

HUB = Recipe(model="owner/name", quant="none")


def answer(monkeypatch, error):
    def info(*args, **kw): raise error.__new__(error)
    monkeypatch.setattr(huggingface_hub, "model_info", info)
    def nothing(*args, **kw): raise errors.LocalEntryNotFoundError("not in the cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)


@pytest.mark.parametrize("error,words", [(errors.GatedRepoError, ["gated", "Accept its licence", "login"]),
    (errors.RepositoryNotFoundError, ["has no model", "private"]), (errors.RevisionNotFoundError, ["no revision"]),
    (ConnectionError, ["cannot be reached", "network"])])
def test_what_the_hub_answers(monkeypatch, error, words):
    answer(monkeypatch, error)
    with pytest.raises(RecipeError) as e: find_model(HUB)
    assert all(w in str(e.value) for w in words) and "owner/name" in str(e.value)


def test_from_the_hub(monkeypatch):
    said, asked = [], {}
    files = [SimpleNamespace(rfilename=n, size=s) for n, s in (("model.safetensors", 10**9), ("config.json", 1000),
        ("pytorch_model.bin", 10**9), ("code.py", 500))]
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *a, **kw: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kw: asked.update(kw) or str(petit.path()))
    assert find_model(HUB, said.append) == petit.path()
    assert said == ["owner/name: 1.00 GB to fetch, unless it is in the cache"]
    assert not any(fnmatch.fnmatch(n, p) for n in ("pytorch_model.bin", "code.py", "a.pkl")
        for p in asked["allow_patterns"])
    find_model(HUB, said.append, weights=False)
    assert not any(fnmatch.fnmatch("model.safetensors", p) for p in asked["allow_patterns"])


def test_a_run_on_a_hub_name_says_so_in_its_adapter(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *a, **kw: SimpleNamespace(siblings=[]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kw: str(petit.path()))
    recipe = HUB.replace(max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=1,
        gradient_checkpointing=True, test_size=4)
    run = Run(recipe, tmp_path/"run").train()
    assert run.adapter.config["base_model_name_or_path"] == "owner/name"
    assert all(ok for ok, _ in run.checks)


def test_activations_are_recomputed_and_transformers_warns_of_nothing():
    recipe = Recipe(quant="none", gradient_checkpointing=True)
    base, _ = load_base(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = attach(base, recipe)
    plain = attach(load_base(recipe)[0], recipe.replace(gradient_checkpointing=False))
    recomputed = lambda model: any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    assert recomputed(model) and not recomputed(plain)


def test_pickles_are_refused(tmp_path):
    (tmp_path/"config.json").write_text("{}")
    (tmp_path/"pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RecipeError, match="no .safetensors file"): find_model(Recipe(model=str(tmp_path)))


def test_dtype_policy():
    assert compute_dtype("cuda", capability=(7, 5)) == compute_dtype("cuda:1", capability=(7, 0)) == torch.float16
    assert compute_dtype("cuda", capability=(8, 0)) == compute_dtype("cuda", capability=(12, 0)) == torch.bfloat16
    assert compute_dtype("cpu", torch.float32) == torch.float32
    units = any(getattr(torch.cpu, n, bool)() for n in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    assert compute_dtype("cpu", torch.bfloat16) == (torch.bfloat16 if units else torch.float32)


@pytest.mark.parametrize("quant,dtype", [("none", "bfloat16"), ("nf4", "bfloat16"), ("nf4", "float32")])
def test_adapters_stay_in_float32(quant, dtype, tmp_path):
    run = Run(Recipe(quant=quant, dtype=dtype, r=2, max_steps=2, per_device_train_batch_size=2, test_size=4,
        eval_steps=0), tmp_path/"run").train()
    assert {p.dtype for p in run.model.parameters() if p.requires_grad} == {torch.float32}
    assert run.model.get_base_model().loranb_dtype == getattr(torch, dtype)
    assert run.state == "done" and all(ok for ok, _ in run.checks)


def test_attach_leaves_the_generator_alone():
    model, _ = load_base(Recipe())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    lora = attach(model, Recipe())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(77)
    again = attach(load_base(Recipe())[0], Recipe())
    assert all(torch.equal(a, b) for (n, a), (_, b) in zip(lora.named_parameters(), again.named_parameters())
        if "lora" in n)


def test_exact_4bit():
    model, tok = load_base(Recipe())
    ids = tok("the cat", return_tensors="pt").input_ids
    with exact_4bit(model), torch.no_grad(): model(ids)
    assert not is_repacked(model) and len(quantized_layers(model)) == 28
