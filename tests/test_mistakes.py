"Every mistake of a user is one clear message, and nothing has started."
import json, math, os, subprocess, sys

import pytest

from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

CHAT = [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Bonjour"}]}]*12


def chat(role="user", answer="Bonjour"):
    return [{"messages": [{"role": role, "content": "Hello"}, {"role": "assistant", "content": answer}]}]


def png(tmp):
    path = tmp/"data.jsonl"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return str(path)


CASES = {"unknown model on the Hub": (lambda t: dict(model="nobody/no-such-model"), ["model", "nobody/no-such-model"]),
    "unknown model name": (lambda t: dict(model="petti"), ["model", "petti", "Did you mean 'petit'?"]),
    "a folder without a model": (lambda t: dict(model=str(t)), ["config.json"]),
    "no rows": (lambda t: dict(data=[]), ["data", "has no rows"]),
    "unknown columns": (lambda t: dict(data=[{"q": "a", "a": "b"}]),
    ["'q', 'a'", "columns={'user': 'q', 'assistant': 'a'}"]),
    "empty assistant": (lambda t: dict(data=chat(answer="  ")), ["row 1", "assistant says nothing"]),
    "unknown role": (lambda t: dict(data=chat(role="usr")), ["row 1", "'usr'", "Did you mean 'user'?"]),
    "r = 0": (lambda t: dict(r=0), ["r must be", "0"]), "r = -1": (lambda t: dict(r=-1), ["r must be", "-1"]),
    "r = eight": (lambda t: dict(r="eight"), ["r must be", "'eight'"]),
    "r = True": (lambda t: dict(r=True), ["r must be", "True"]),
    "targets that match nothing": (lambda t: dict(target_modules=["q_porj"]),
    ["target_modules", "'q_porj'", "Did you mean 'q_proj'?"]),
    "a pattern that matches nothing": (lambda t: dict(target_modules=".*mlp2.*"),
    ["target_modules", "matches no layer"]), "a pattern that is none": (lambda t: dict(target_modules="(("),
    ["target_modules", "no regular expression"]), "unknown quantization": (lambda t: dict(quant="nf5"),
    ["quant", "'nf5'", "Did you mean 'nf4'?"]), "alpha = nan": (lambda t: dict(lora_alpha=math.nan),
    ["lora_alpha", "nan"]), "learning rate = inf": (lambda t: dict(learning_rate=math.inf), ["learning_rate", "inf"]),
    "misspelt field": (lambda t: dict(learning_rat=1e-3), ["'learning_rat'", "Did you mean 'learning_rate'?"]),
    "a PNG as data": (lambda t: dict(data=png(t)), ["data", "not a text file"]),
    "no such data": (lambda t: dict(data="no/such/file.jsonl"), ["data", "no/such/file.jsonl"]),
    "no such task": (lambda t: dict(data="petit/translat"), ["'translat'", "Did you mean 'translate'?"]),
    "no such split": (lambda t: dict(data="petit/translate", split="valid"), ["split", "'valid'"]),
    "everything cut away": (lambda t: dict(max_length=2), ["max_length", "Raise max_length"]),}


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, tmp_path):
    make, words = CASES[name]
    with pytest.raises(RecipeError) as e: Run(Recipe(**{"data": CHAT, **make(tmp_path)}), tmp_path/"out").train()
    text = str(e.value)
    assert all(w in text for w in words), text
    assert "\n" not in text and len(text) < 600
    assert not (tmp_path/"out").exists()


def test_used_folder(tmp_path):
    (tmp_path/"notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="in use already"): Run(Recipe(), tmp_path).train()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_no_room(tmp_path, monkeypatch):
    import shutil
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage._replace(free=1_000_000))
    with pytest.raises(RecipeError, match="1 MB are free"): Run(Recipe(), tmp_path/"out").train()
    assert not (tmp_path/"out").exists()


def test_no_right_to_write(tmp_path, monkeypatch):
    (tmp_path/"file").write_text("")
    with pytest.raises(RecipeError, match="no right to write"): Run(Recipe(), tmp_path/"file"/"out").train()
    monkeypatch.setattr(os, "access", lambda p, mode: False)  # root may write anywhere, so its right is taken away here
    with pytest.raises(RecipeError, match="no right to write"): Run(Recipe(), tmp_path/"out").train()


@pytest.mark.parametrize("kind,changes", [("IA3", None), ("PiSSA", dict(init_lora_weights="pissa"))])
def test_adapter_of_another_kind(kind, changes, tmp_path):
    from peft import IA3Config, LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from loranb.spectra.spectra import Spectra
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2))
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"],
        feedforward_modules=[]) if changes is None else LoraConfig(r=2, target_modules=["q_proj"], **changes)
    model = get_peft_model(model, config)
    model.save_pretrained(tmp_path)
    for source in (model, tmp_path):
        with pytest.raises(RecipeError, match=f"(?i){kind}"): Spectra.of(source)


def test_one_line_in_the_shell_and_in_a_notebook(tmp_path):
    (tmp_path/"r.yaml").write_text("lora:\n  rank: 8\n")
    done = subprocess.run([sys.executable, "-c", "from loranb.cli import main; raise SystemExit(main())", "train",
        str(tmp_path/"r.yaml")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "'rank'" in done.stderr
    assert RecipeError("r must be").  _render_traceback_() == ["RecipeError: r must be"]


@pytest.mark.parametrize("prompt", [3, [{"role": "usr", "content": "hi"}], [{"rol": "user"}], [["hi"]], [None],
    {"role": "user"}])
def test_a_prompt_that_is_none(prompt):
    from loranb.models.hub import load_tokenizer
    from loranb.models import petit
    from loranb.evaluate.answers import generate
    with pytest.raises(RecipeError, match="prompt: a message has a role"):
        generate(None, load_tokenizer(petit.path()), prompt)


@pytest.mark.parametrize("name", ["finetune", "doctor", "preview", "plan", "lr_find"])
def test_rows_in_the_place_of_a_recipe(name):
    import loranb
    with pytest.raises(RecipeError, match="recipe: give a Recipe, such as Recipe"): getattr(loranb, name)(CHAT)


def test_how_many_rows_a_preview_looks_at():
    from loranb import preview
    for rows in (-1, "all"):
        with pytest.raises(RecipeError, match="rows must be a whole number, 0 for all"):
            preview(Recipe(data=CHAT), rows=rows)


@pytest.mark.parametrize("changes,words",
    [(dict(rank_pattern={"q_proj": 4.5}), "rank_pattern must be a dictionary from module names to whole numbers"),
    (dict(use_dora=True, quant="int8"), "use_dora: PEFT's DoRA cannot be trained on an int8 base")])
def test_what_a_recipe_refuses(changes, words):
    with pytest.raises(RecipeError, match=words): Recipe(**changes)


@pytest.mark.parametrize("name,card", [("NVIDIA H100 80GB HBM3", "H100"), ("H100-80GB", "H100"),
    ("Tesla P100-PCIE-16GB", "P100"), ("NVIDIA A100-SXM4-80GB", "A100-80GB"), ("Tesla V100-SXM2-16GB", "V100-16GB"),
    ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"), ("RTX 4090 24GB", "RTX 4090"), ("T4\n", "T4"),
    ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX 6000 Blackwell"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti Super"), ("NVIDIA RTX A5000", "RTX A5000"), ("a6000", "RTX A6000"),
    ("NVIDIA A100 80GB PCIe", "A100-80GB"), ("NVIDIA H100 PCIe", "H100-PCIe"), ("GeForce RTX™ 4090 (24 GB)", "RTX 4090"),
    ("3090ti", "RTX 3090 Ti"), ("Tesla_T4", "T4")])
def test_cards_as_drivers_call_them(name, card):
    from loranb.memory.gpus import find_gpu
    assert find_gpu(name).name == card
