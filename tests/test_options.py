"""Every field of a recipe reaches what it names: changed from its default it changes what is built, the YAML and the
script, and survives the round trip. A field that nothing reads changes nothing that is seen here, and fails. Where a library is missing (a tracker), the refusal that names it is what is seen.
"""
import gc, hashlib, json
from dataclasses import fields

import pytest, transformers

from families import ROWS, TEXTS, build
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

LONG = ROWS + [{"prompt": "the cat "*5 + "=", "completion": " sleeps"*5}]*8
CHANGES = dict(model="other", revision="v1", trust_remote_code=True, task_type="SEQ_CLS", quant="int8",
    bnb_4bit_use_double_quant=False, dtype="bfloat16", r=2, lora_alpha=3., use_rslora=True, lora_dropout=.1,
    target_modules=["q_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 4}, exclude_modules=["up_proj"],
    target_parameters=["mlp.experts.gate_up_proj"], modules_to_save=["norm"], use_dora=True,
    init_lora_weights="gaussian", data=ROWS[:6], split="test", test_size=0, max_length=6,
    labels=["sleeps", "sings", "eats"], learning_rate=1e-2, lr_scheduler_type="linear",
    lr_scheduler_kwargs={"num_cycles": 2}, warmup_steps=2, num_train_epochs=2., max_steps=2,
    per_device_train_batch_size=1, gradient_accumulation_steps=2, optim="adamw_8bit", loraplus_lr_ratio=4.,
    weight_decay=.1, max_grad_norm=.1, neftune_noise_alpha=5., gradient_checkpointing=True, eval_steps=2,
    early_stopping_patience=1, load_best_model_at_end=True, spectra_steps=1, save_steps=1, seed=1,
    columns={"prompt": "completion", "completion": "prompt"}, test_split="test", deduplicate=True,
    acknowledged=["bad-rows"], train_on="all", packing=True, group_by_length=True, sample_steps=1, min_length=14,
    drop_overlong=True, hub_model_id="me/run", report_to=["wandb"], adapter_name_or_path="adapter")
WITH = dict(drop_overlong=dict(max_length=12, data=LONG), min_length=dict(data=LONG, max_length=64),
    acknowledged=dict(data="broken.jsonl"), deduplicate=dict(data=ROWS + ROWS[:3]), packing=dict(max_length=64),
    use_rslora=dict(lora_alpha=8.), lr_scheduler_type=dict(max_steps=5), revision=dict(model="owner/name"),
    task_type=dict(data=TEXTS), labels=dict(data=TEXTS, task_type="SEQ_CLS"), target_parameters=dict(model="experts"),
    num_train_epochs=dict(max_steps=-1), bnb_4bit_use_double_quant=dict(quant="nf4"), quant=dict(quant="nf4"),
    early_stopping_patience=dict(learning_rate=5., eval_steps=1, max_steps=6),
    load_best_model_at_end=dict(eval_steps=1))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    gc.collect(); gc.freeze()
    home = tmp_path_factory.mktemp("options")
    for name, family, kw in (("tiny", "llama", {}), ("other", "llama", dict(num_hidden_layers=1)),
            ("experts", "gpt_oss", {})):
        build(family, home/name, **kw)
    for split, rows in (("train", ROWS), ("test", ROWS[::-1])):
        (home/"rows").mkdir(exist_ok=True)
        (home/"rows"/f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (home/"broken.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS
        + [{"prompt": "an answer is missing", "completion": ""}]))
    Run(made(home, "r")[0].replace(seed=7, learning_rate=1e-2), home/"earlier").train()
    yield home
    gc.unfreeze()


@pytest.fixture
def spied(home, monkeypatch):
    "What the Hub and the loaders are asked"
    import huggingface_hub
    asked, whole = [], transformers.AutoConfig.from_pretrained.__func__
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *a, **kw: type("Info", (), dict(siblings=[]))())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, revision=None, **kw: asked.append(revision)
        or str(home/"tiny"))
    def config(cls, path, **kw):
        asked.append(kw.get("trust_remote_code"))
        return whole(cls, path, **kw)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", classmethod(config))
    return asked


def made(home, name):
    base = dict(model="tiny", data=str(home/"rows"), quant="none", r=4, learning_rate=1e-3, max_steps=3,
        per_device_train_batch_size=2, gradient_accumulation_steps=1, max_length=16, gradient_checkpointing=False,
        test_size=4, eval_steps=0, save_steps=0, spectra_steps=0)
    base = {**base, **WITH.get(name, {})}
    if name in ("early_stopping_patience", "load_best_model_at_end"): base["test_size"] = 1
    paths = dict(adapter="earlier/adapter")
    here = lambda v: str(home/paths.get(v, v)) if v in ("tiny", "other", "experts", "broken.jsonl", "adapter") else v
    local = lambda kw: {k: here(v) if isinstance(v, str) and k in ("model", "data", "adapter_name_or_path") else v
        for k, v in kw.items()}
    return Recipe(**local(base)), Recipe(**local({**base, name: CHANGES[name]}))


def seen(recipe, out, spied, monkeypatch):
    "All that a run builds from a recipe, as text"
    spied.clear()
    kept, whole = [], Run._build
    monkeypatch.setattr(Run, "_build", lambda self: kept.append(whole(self)) or kept[-1])
    try: run = Run(recipe, out).train()
    except RecipeError as e: return dict(refused=str(e))
    finally: monkeypatch.undo()
    trainer, base, data = kept[0], run.model.get_base_model(), run._data
    args = {k: v for k, v in trainer.args.to_dict().items() if k not in ("output_dir", "logging_dir")}
    groups = [(len(g["params"]), g.get("initial_lr"), g.get("weight_decay")) for g in trainer.optimizer.param_groups]
    weights = hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()
    return dict(asked=str(spied), lora=str(run.model.peft_config["default"].to_dict()), quantized=str(getattr(base.config, "quantization_config", None)), model=f"{type(base)} {base.config}", dtype=str(base.loranb_dtype),
        args=str(args), optimizer=f"{type(trainer.optimizer.optimizer if hasattr(trainer.optimizer, 'optimizer') else trainer.optimizer)} {groups}", data=str([(e.input_ids, e.labels) for e in [*data.train, *data.test]]),
        weights=weights, events=str([(e["type"], e["step"]) for e in run.events]), files=str(sorted(p.name for p in out.iterdir())))


def test_every_field_has_a_change():
    assert {f.name for f in fields(Recipe)} == set(CHANGES), "a new field of Recipe needs a line in CHANGES, so that it is seen to be read"


WHERE = dict(min_length="data", drop_overlong="data", columns="data", test_split="data", deduplicate="data",
    acknowledged="refused", train_on="data", packing="weights", group_by_length="weights", sample_steps="events",
    hub_model_id="args", report_to="refused", adapter_name_or_path="weights", model="model", revision="asked",
    trust_remote_code="asked", task_type="model", quant="quantized", bnb_4bit_use_double_quant="quantized",
    dtype="dtype", data="data", split="data", test_size="data", max_length="data", labels="model", optim="optimizer",
    loraplus_lr_ratio="optimizer", weight_decay="optimizer", eval_steps="events", early_stopping_patience="events",
    load_best_model_at_end="events", spectra_steps="events", save_steps="events",
    **dict.fromkeys(("r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules", "rank_pattern",
    "alpha_pattern", "exclude_modules", "target_parameters", "modules_to_save", "use_dora", "init_lora_weights"),
    "lora"), **dict.fromkeys(("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm",
    "neftune_noise_alpha", "gradient_checkpointing", "seed"), "args"))
WEIGHTLESS = ("acknowledged", "report_to", "hub_model_id", "sample_steps", "test_split", "revision",
    "trust_remote_code", "max_grad_norm", "gradient_checkpointing", "eval_steps", "early_stopping_patience",
    "load_best_model_at_end", "spectra_steps", "save_steps", "optim", "test_size", "labels")


BEFORE = {}


@pytest.mark.parametrize("name", CHANGES)
def test_a_field_reaches_what_it_names(name, home, spied, monkeypatch, tmp_path):
    plain, changed = made(home, name)
    assert changed.to_yaml() != plain.to_yaml() and Recipe.from_yaml(changed.to_yaml()) == changed
    script = changed.to_python()
    assert script != plain.to_python() and eval(script[script.index("Recipe("):script.index("run =")]) == changed
    if plain.to_yaml() not in BEFORE:
        with monkeypatch.context() as m: BEFORE[plain.to_yaml()] = seen(plain, tmp_path/"before", spied, m)
    before = BEFORE[plain.to_yaml()]
    with monkeypatch.context() as m: after = seen(changed, tmp_path/"after", spied, m)
    differ = {k for k in {**before, **after} if before.get(k) != after.get(k)}
    assert "refused" not in before or name == "acknowledged" or "refused" not in after, "neither could run"
    assert WHERE[name] in differ, f"{name} changed only {differ or 'nothing'}"
    if name not in WEIGHTLESS:
        assert "weights" in differ, f"{name} is written down ({differ}), and the adapter is the same"
