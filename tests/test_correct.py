"The same training, however it is cut up: batches, processes, stops; every start and optimizer saved, resumed, trimmed and reloaded."
import hashlib, json, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch
from safetensors.torch import load_file

from families import build, recipe
from loranb.models.quantization import quantized_layers
from loranb.models.loading import load_base
from loranb.models.lora import attach, load_adapter_on
from loranb.evaluate.scores import row_logits
from loranb.core.fields import RecipeError
from loranb.core.recipe import PRESETS, Recipe
from loranb.spectra.spectra import Spectra
from loranb.train.run import Run

UNEQUAL = [{"prompt": "the cat "*(1 + i % 7), "completion": " sleeps well"*(1 + i*i % 11)} for i in range(32)]
TESTS = Path(__file__).parent
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("correct")/"tiny"
    build("llama", path)
    return path


def factors(run): return load_file(run.adapter.path/"adapter_model.safetensors")
def gap(a, b):
    return max(float((a[k] - b[k]).abs().max()) for k in a)/max(float(v.abs().max()) for k,
        v in b.items() if "lora_B" in k)
def fingerprint(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()


def sgd(tiny, **kw):
    return recipe(tiny, "none", **{**dict(data=UNEQUAL, test_size=0, max_length=128, max_steps=2, optim="sgd",
        learning_rate=.5, lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=0.), **kw})


@pytest.mark.parametrize("rows,steps", [(1, 16), (4, 4)])
def test_accumulation_is_over_tokens(tiny, tmp_path, rows, steps):
    whole = Run(sgd(tiny, per_device_train_batch_size=16), tmp_path/"whole").train()
    cut = Run(sgd(tiny, per_device_train_batch_size=rows, gradient_accumulation_steps=steps), tmp_path/"cut").train()
    assert gap(factors(cut), factors(whole)) < 1e-5
    assert [e["loss"] for e in cut.of_type("step")] == pytest.approx([e["loss"] for e in whole.of_type("step")],
        rel=1e-5)
    assert len({e["tokens"] for e in whole.of_type("step")}) == 2


RANK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from loranb.core.recipe import Recipe
from loranb.train.run import Run
Run(Recipe.from_yaml(sys.argv[2]), os.path.join(sys.argv[3], "rank" + os.environ["RANK"])).train()
"""


@SLOW
def test_two_processes_are_one(tiny, tmp_path):
    whole = Run(sgd(tiny, per_device_train_batch_size=8), tmp_path/"whole").train()
    (tmp_path/"rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in UNEQUAL))
    sgd(tiny, per_device_train_batch_size=4, data=str(tmp_path/"rows.jsonl")).to_yaml(tmp_path/"half.yaml")
    (tmp_path/"rank.py").write_text(RANK)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone",
        str(tmp_path/"rank.py"), str(TESTS), str(tmp_path/"half.yaml"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    ranks = [Run.open(tmp_path/f"rank{i}") for i in (0, 1)]
    assert fingerprint(ranks[0]) == fingerprint(ranks[1]) and gap(factors(ranks[0]), factors(whole)) < 1e-5


def test_half_precision_keeps_what_is_trained_in_float32(tiny):
    "T4's policy as far as a CPU can show it: a base and a forward pass in float16, a loss scaler that would refuse gradients in float16"
    model, _ = load_base(recipe(tiny, "nf4", dtype="float16"))
    lora = attach(model, recipe(tiny, "nf4", dtype="float16", modules_to_save=["embed_tokens"]))
    trained = [p for p in lora.parameters() if p.requires_grad]
    assert quantized_layers(model) and {p.dtype for p in trained} == {torch.float32}
    optimizer, scaler, before = torch.optim.SGD(trained, lr=.1), torch.amp.GradScaler("cpu",
        init_scale=2.**10), [p.detach().clone() for p in trained]
    ids = torch.arange(3, 19)[None]
    with torch.autocast("cpu", torch.float16): loss = lora(input_ids=ids, labels=ids).loss
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained)
    scaler.step(optimizer)
    assert sum(not torch.equal(p, b) for p, b in zip(trained, before)) > 14
    lora(input_ids=ids)  # and without autocast, as a sample between two steps runs


KINDS = {"DoRA": dict(use_dora=True), "LoRA+": dict(loraplus_lr_ratio=8.),
    "PiSSA": dict(init_lora_weights="pissa", quant="none"), "OLoRA, rsLoRA": dict(init_lora_weights="olora",
    quant="none", use_rslora=True, rank_pattern={"q_proj": 2}), "LoftQ": dict(init_lora_weights="loftq"),
    "orthogonal": dict(init_lora_weights="orthogonal", quant="none"), "NEFTune": dict(neftune_noise_alpha=5.),
    "whole modules": dict(modules_to_save=["embed_tokens"]), "8-bit Adam, LoRA+": dict(optim="paged_adamw_8bit",
    loraplus_lr_ratio=4.)}
AT_ONCE = "DoRA", "PiSSA"


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[SLOW]*(k not in AT_ONCE)) for k in KINDS])
def test_every_kind_is_saved_resumed_trimmed_and_reloaded(kind, tiny, tmp_path):
    r = recipe(tiny, "nf4", max_steps=4, learning_rate=5e-3, spectra_steps=2).replace(**KINDS[kind])
    whole = Run(r, tmp_path/"whole").train()
    assert all(ok for ok, _ in whole.checks), whole.checks
    run = Run(r, tmp_path/"run")
    run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == 2 else None).train()
    assert (run.state, run.steps) == ("stopped", 2)
    again = Run.open(run.path).resume()
    assert fingerprint(again) == fingerprint(whole)
    row, here = again._data.train[0], row_logits(again.model, again._data.train[0])
    fresh = row_logits(load_adapter_on(load_base(r)[0], again.adapter.path), row)
    assert (fresh - here).abs().max() <= (0 if "SSA" not in kind and "OLoRA" not in kind else 1e-4)
    live, saved = Spectra.of(again.model), Spectra.of(again.adapter.path)
    assert live.names == saved.names and all(abs(live[n] - saved[n]).max() <= 1e-3*live[n].max() for n in live.names)
    assert [s for s, _ in again.spectra_history] == [1, 2, 4]
    if kind in ("DoRA", "whole modules"): return  # what trimming does with these is told in tests/test_trim.py
    small = again.adapter.trim(energy=.9999).save(tmp_path/"small")
    assert (row_logits(load_adapter_on(load_base(r)[0], small.path), row) - here).abs().max() < .1


def test_loftq_makes_up_for_the_rounding(tiny):
    kw = dict(r=8, lora_alpha=32)
    exact = row_logits(load_base(recipe(tiny, "none"))[0], row := type("Row", (), dict(input_ids=list(range(3, 30))))())
    far = {start: (row_logits(attach(load_base(recipe(tiny, "nf4"))[0],
        recipe(tiny, "nf4", init_lora_weights=start, **kw)), row) - exact).norm() for start in (True, "loftq")}
    assert far["loftq"] < .9*far[True]


def test_patience_and_the_best(tiny, tmp_path, monkeypatch):
    losses = iter([3., 2., 1., 1.5, 1.2, 1.1, .5])
    monkeypatch.setattr("loranb.train.observer.held_out_loss", lambda *args, **kw: next(losses))
    r = recipe(tiny, "none", max_steps=7, eval_steps=1, lr_scheduler_type="constant", warmup_steps=0,
        early_stopping_patience=2, load_best_model_at_end=True)
    run = Run(r, tmp_path/"run").train()
    assert (run.state, run.steps) == ("done", 5) and run.of_type("best")[0]["best"] == 3 and all(ok for ok,
        _ in run.checks)
    monkeypatch.undo()
    three = Run(r.replace(max_steps=3, early_stopping_patience=0, load_best_model_at_end=False, eval_steps=0),
        tmp_path/"three").train()
    assert fingerprint(three) == fingerprint(run)
    with pytest.raises(RecipeError, match="it is done"): run.resume()


@pytest.mark.slow
def test_patience_outlives_a_kernel(tiny, tmp_path, monkeypatch):
    "A run that had stopped early, and was lost before it said so, does no further step"
    losses = iter([3., 1., 1.5, 1.2])
    monkeypatch.setattr("loranb.train.observer.held_out_loss", lambda *args, **kw: next(losses))
    run = Run(recipe(tiny, "none", max_steps=7, eval_steps=1, save_steps=1, early_stopping_patience=2), tmp_path/"run")
    monkeypatch.setattr(run, "_end", lambda: (_ for _ in ()).throw(OSError("lost")))
    with pytest.raises(Exception): run.train()
    again = Run.open(tmp_path/"run").resume()
    assert (again.state, again.steps) == ("done", 4)


@pytest.mark.parametrize("name", [pytest.param(o, marks=[SLOW]*bool(i)) for i, o in enumerate(PRESETS)])
def test_presets_train(name, tiny, tmp_path):
    run = Run(Recipe.preset(name, **{k: v for k, v in recipe(tiny, PRESETS[name][1]["quant"]).changed().items()
        if k in ("model", "data", "test_size", "eval_steps", "save_steps", "spectra_steps")}, max_steps=1,
        max_length=16), tmp_path/"run").train()
    assert run.state == "done" and np.isfinite(run.of_type("step")[0]["loss"])


@pytest.mark.parametrize("kw,words", [(dict(init_lora_weights="pissa"), "needs quant='none'"),
    (dict(init_lora_weights="olora", quant="int8"), "needs quant='none'"),
    (dict(init_lora_weights="loftq", quant="none"), "needs quant='fp4' or 'nf4'"),
    (dict(init_lora_weights="loftq", quant="int8"), "needs quant="),
    (dict(init_lora_weights="adalora"), "would be plain LoRA"), (dict(init_lora_weights="eva"), "needs activations"),
    (dict(init_lora_weights="pisa"), "Did you mean 'pissa'"), (dict(init_lora_weights="orthogonal", quant="none", r=3),
    "even r"), (dict(target_parameters=["x"], lora_dropout=.1), "no dropout"),
    (dict(target_parameters=["x"], use_dora=True), "no DoRA"),
    (dict(use_dora=True, init_lora_weights="pissa", quant="none"), "use_dora"),
    (dict(early_stopping_patience=2, eval_steps=0), "held-out loss"), (dict(load_best_model_at_end=True, test_size=0),
    "held-out loss"), (dict(lr_scheduler_type="cosine_with_min_lr"), "min_lr"),
    (dict(loraplus_lr_ratio=.5), "at least 1"), (dict(lr_scheduler_type="reduce_lr_on_plateau"),
    "lr_scheduler_type must be one of")])
def test_what_does_not_go_together_is_one_sentence(kw, words):
    with pytest.raises(RecipeError) as e: Recipe(**kw)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_going_on_from_a_saved_adapter(tiny, tmp_path):
    r = recipe(tiny, "none", learning_rate=5e-3)
    first = Run(r, tmp_path/"first").train()
    lora = attach(load_base(r)[0], on := r.replace(adapter_name_or_path=str(first.adapter.path)))
    row = first._data.train[0]
    assert torch.equal(row_logits(lora, row), row_logits(first.model, row))
    second = Run(on, tmp_path/"second").train()
    assert all(ok for ok, _ in second.checks) and gap(factors(second), factors(first)) > 0
    with pytest.raises(RecipeError, match="and the recipe 2. They must be the same"):
        attach(load_base(r)[0], on.replace(r=2))
    with pytest.raises(RecipeError, match="holds no adapter"):
        attach(load_base(r)[0], on.replace(adapter_name_or_path=str(tmp_path)))
