"Every field of a recipe survives YAML and Python, and reaches the object that it names."
from dataclasses import fields

import pytest, torch
from hypothesis import given, strategies as st

from loranb.core.fields import RecipeError
from loranb.core.recipe import SECTIONS, SETTINGS, Recipe

OTHER = dict(model="org/name", revision="v1", trust_remote_code=True, quant="int8", bnb_4bit_use_double_quant=False,
    dtype="float16", r=3, lora_alpha=7.5, use_rslora=True, lora_dropout=.1, target_modules=["q_proj", "v_proj"],
    rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 4}, data="rows.jsonl", split="test", test_size=3,
    columns={"user": "q", "assistant": ["a", "b"]}, test_split="dev", deduplicate=True, acknowledged=["duplicates"],
    max_length=77, labels=["no", "yes"], min_length=2, drop_overlong=True, train_on="last", packing=True,
    group_by_length=True, learning_rate=1e-5, lr_scheduler_type="linear", warmup_steps=5, num_train_epochs=2.,
    max_steps=9, per_device_train_batch_size=3, gradient_accumulation_steps=5, optim="adamw_torch", weight_decay=.1,
    max_grad_norm=.3, gradient_checkpointing=True, eval_steps=7, spectra_steps=6, save_steps=5, sample_steps=8,
    hub_model_id="me/run", report_to=["wandb"], adapter_name_or_path="runs/a/adapter", seed=1, task_type="SEQ_CLS",
    use_dora=True, init_lora_weights="gaussian", exclude_modules=["router"], target_parameters=["mlp.experts.up"],
    modules_to_save=["norm"], loraplus_lr_ratio=16., neftune_noise_alpha=5., lr_scheduler_kwargs={"num_cycles": 2},
    early_stopping_patience=3, load_best_model_at_end=True)
BUILT = dict(r="peft", lora_alpha="peft", use_rslora="peft", lora_dropout="peft", target_modules="peft",
    rank_pattern="peft", alpha_pattern="peft", learning_rate="trainer", lr_scheduler_type="trainer",
    warmup_steps="trainer", num_train_epochs="trainer", max_steps="trainer", per_device_train_batch_size="trainer",
    gradient_accumulation_steps="trainer", weight_decay="trainer", max_grad_norm="trainer",
    gradient_checkpointing="trainer", seed="trainer", report_to="trainer", hub_model_id="trainer",
    exclude_modules="peft", target_parameters="peft", modules_to_save="peft", use_dora="peft",
    init_lora_weights="peft", task_type="peft", neftune_noise_alpha="trainer", lr_scheduler_kwargs="trainer")


def test_all_fields_are_walked():
    names = {f.name for f in fields(Recipe)}
    assert names == set(OTHER) == set(SETTINGS) == {n for s in SECTIONS.values() for n in s}


@pytest.mark.parametrize("name", OTHER)
def test_round_trips(name):
    recipe = Recipe().replace(**{name: OTHER[name]})
    assert recipe != Recipe() and getattr(recipe, name) == OTHER[name]
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    script = recipe.to_python()
    assert eval(script[script.index("Recipe("):script.index("run =")]) == recipe
    if name in BUILT:
        assert (recipe.peft_kwargs() if BUILT[name] == "peft" else recipe.trainer_kwargs())[name] == OTHER[name]


def test_what_the_libraries_make_of_it(tmp_path):
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, TrainingArguments
    recipe = Recipe(**{**OTHER, "quant": "fp4", "task_type": "CAUSAL_LM", "use_rslora": False,
        "target_parameters": None})
    lora, args = LoraConfig(**recipe.peft_kwargs()), TrainingArguments(**recipe.trainer_kwargs(),
        output_dir=str(tmp_path), use_cpu=True)
    bnb = BitsAndBytesConfig(**recipe.bnb_kwargs(torch.float16))
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.rank_pattern) == (3, 7.5, .1,
        {"q_proj": 2}) and set(lora.target_modules) == {"q_proj", "v_proj"}
    assert (args.learning_rate, args.max_steps, args.gradient_accumulation_steps, args.seed, args.data_seed) == (1e-5,
        9, 5, 1, 1)
    assert (bnb.load_in_4bit, bnb.bnb_4bit_quant_type, bnb.bnb_4bit_use_double_quant,
        bnb.bnb_4bit_compute_dtype) == (True, "fp4", False, torch.float16)
    assert recipe.replace(quant="none").bnb_kwargs(torch.float16) is None and recipe.replace(quant="int8",
        use_dora=False).bnb_kwargs(torch.float16) == dict(load_in_8bit=True)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Recipe)]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
    st.lists(st.text(max_size=3), max_size=2)), max_size=3))
def test_any_value_is_taken_or_refused_in_one_line(changes):
    try: recipe = Recipe(**changes)
    except RecipeError as e:
        assert "\n" not in str(e).replace(repr(changes), "") or any("\\n" in repr(v) for v in changes.values())
    else: assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_defaults_depend_on_the_model():
    assert (Recipe().max_steps, Recipe().learning_rate, Recipe().gradient_checkpointing) == (240, 3e-3, False)
    assert (Recipe(model="org/name").max_steps, Recipe(model="org/name").learning_rate) == (-1, 2e-4)
    assert Recipe(model="org/name").gradient_checkpointing and Recipe(model="org/name",
        gradient_checkpointing=False).gradient_checkpointing is False
    assert Recipe(r=64).lora_alpha == 128 and Recipe(r=64, use_rslora=True).lora_alpha == 64


@pytest.mark.parametrize("text,words", [("r: 8\nlora: [1", "not readable"), ("", "no fields"),
    ("just words", "no recipe file"), ("lora:\n  rnak: 8", "'rnak'"), ("- 1\n- 2", "no fields")])
def test_bad_yaml(text, words):
    with pytest.raises(RecipeError, match=words): Recipe.from_yaml(text + "\n" if "\n" in text or not text else text)


def test_html_is_escaped(): assert "<script" not in Recipe(data="<script>alert(1)</script>")._repr_html_()


@pytest.mark.parametrize("text,line", [("r: 4\ndata\nquant: nf4\n", 2), ("r: 4\ndata: a: b\n", 2)])
def test_what_is_no_yaml_is_told_by_its_line(text, line):
    with pytest.raises(RecipeError, match=f"^The recipe is not readable as YAML, line {line}: .*[.]$"): Recipe.from_yaml(text)
