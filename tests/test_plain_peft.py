"What loranb leaves is PEFT's: a process that never imports loranb loads it and gets the same logits."
import json, subprocess, sys

import pytest, torch

from loranb.models import petit
from loranb.core.recipe import Recipe
from loranb.train.run import Run

PLAIN = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
base, adapter, quant, out = sys.argv[1:]
kw = {} if quant == "none" else dict(quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quant, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32))
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **kw), adapter).eval()
tok = AutoTokenizer.from_pretrained(base)
text = tok.apply_chat_template([{"role": "user", "content": "Translate to French: The cat sleeps."}], tokenize=False, add_generation_prompt=True)
ids = tok(text, add_special_tokens=False, return_tensors="pt").input_ids
with torch.no_grad(): torch.save(model(ids).logits, out)
assert not any(n.split(".")[0] == "loranb" for n in sys.modules)
"""


@pytest.mark.parametrize("quant", [pytest.param("none", marks=pytest.mark.matrix), "nf4"])
def test_same_logits_without_loranb(quant, tmp_path):
    run = Run(Recipe(r=8, quant=quant, max_steps=4, eval_steps=0, test_size=8), tmp_path/"run").train()
    subprocess.run([sys.executable, "-c", PLAIN, str(petit.path()), str(run.adapter.path), quant,
        str(tmp_path/"plain.pt")], check=True, capture_output=True)
    tok = run.tokenizer
    text = tok.apply_chat_template([{"role": "user", "content": "Translate to French: The cat sleeps."}],
        tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        ours = run.model.eval()(tok(text, add_special_tokens=False, return_tensors="pt").input_ids).logits
    plain = torch.load(tmp_path/"plain.pt")
    assert (ours - plain).abs().max() <= 1e-5
    again = Run.open(run.path)
    with torch.no_grad():
        assert (again.model.eval()(tok(text, add_special_tokens=False, return_tensors="pt").input_ids).logits
            - plain).abs().max() <= 1e-5


@pytest.mark.slow
def test_the_card_tells_how_to_load_it(tmp_path):
    run = Run(Recipe(r=2, max_steps=1, eval_steps=0, test_size=8), tmp_path/"run").train()
    card = (run.adapter.path/"README.md").read_text()
    code = card.split("```python")[1].split("```")[0].replace("PATH-OF-THIS-FOLDER", str(run.adapter.path))
    done = subprocess.run([sys.executable, "-c",
        code + "\nprint(type(model).__name__, model.get_base_model().is_loaded_in_4bit)"], capture_output=True,
        text=True)
    assert done.stdout.split() == ["PeftModelForCausalLM", "True"], done.stderr
    assert "token" not in (run.path/"run.json").read_text()
