"A base's folder in which something is missing, broken or of another size: one sentence that names it, and nothing written"
import codecs, json

import pytest

from loranb import Recipe, doctor
from loranb.core.fields import RecipeError
from loranb.train.run import Run
from small import STILL, chat, llama, tokenizer

ROWS = [chat(f"say {i}", "one") for i in range(12)]


def edit(name, **changes):
    def do(folder):
        given = json.loads((folder/name).read_text())
        (folder/name).write_text(json.dumps(given | changes))
    return do


def write(name, text): return lambda folder: (folder/name).write_text(text)
def begin_with_a_bom(name): return lambda folder: (folder/name).write_bytes(codecs.BOM_UTF8 + (folder/name).read_bytes())
def cut(name): return lambda folder: (folder/name).write_bytes((folder/name).read_bytes()[:2000])


def without_tokenizer(folder):
    for p in [*folder.glob("tokenizer*"), *folder.glob("special_tokens*")]: p.unlink()


# What is done to the folder, and what is said of it
BROKEN = {"no tokenizer": (without_tokenizer, "is not there"), "tokenizer": (write("tokenizer.json", "{"), "tokenizer"),
    "an empty tokenizer": (write("tokenizer.json", "{}"), "tokenizer"),
    "the tokenizer's settings": (write("tokenizer_config.json", "{,"), "tokenizer"),
    "a tokenizer with a mark": (begin_with_a_bom("tokenizer.json"), "BOM"), "config": (write("config.json", "{"), "config.json"),
    "a config that is a list": (write("config.json", "[]"), "config.json"),
    "a config with a mark": (begin_with_a_bom("config.json"), "BOM"),
    "a config without a kind": (write("config.json", "{}"), "names no model_type"),
    "weights": (cut("model.safetensors"), "weights"), "other sizes": (edit("config.json", vocab_size=100), "sizes"),
    "sizes below nothing": (edit("config.json", hidden_size=-4), "configuration"),
    "no weights": (lambda folder: (folder/"model.safetensors").unlink(), "no .safetensors file")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_base_is_one_sentence(name, tmp_path):
    tokenizer(tmp_path/"base"), llama(tmp_path/"base")
    do, word = BROKEN[name]
    do(tmp_path/"base")
    recipe = Recipe(model=str(tmp_path/"base"), data=ROWS, max_length=64, test_size=2, **STILL)
    with pytest.raises(RecipeError, match="^model: ") as said: Run(recipe, tmp_path/"run").train()
    assert word in str(said.value) and "\n" not in str(said.value) and not (tmp_path/"run").exists()
    try: doctor(recipe)
    except RecipeError as e: assert "\n" not in str(e)
