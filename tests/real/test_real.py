"The whole loop on SmolLM2-135M-Instruct and 2,000 rows, in 16 bits' own precision and in NF4: minutes, and the file of `tools/real_base.py`"
import hashlib, json, re

import pytest, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loranb import Recipe, doctor, plan
from loranb.core.fields import RecipeError
from loranb.data.encoding import prepare
from loranb.evaluate.scores import held_out_loss
from loranb.models.lora import adapted_modules
from loranb.runs.checkpoint import checkpoints
from loranb.spectra.spectra import Spectra
from loranb.train.run import Run

pytestmark = pytest.mark.real
END = "<|im_end|>"


@pytest.fixture(scope="module", params=["none", "nf4"])
def recipe(request, real):
    return Recipe(model=str(real/"smollm2"), data=str(real/"translate.jsonl"), quant=request.param, r=16,
        max_length=96, learning_rate=1e-3, max_steps=40, per_device_train_batch_size=8, gradient_accumulation_steps=1,
        gradient_checkpointing=False, eval_steps=0, save_steps=0, dtype="float32")


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory): return Run(recipe, tmp_path_factory.mktemp("real")/"run").train()


def loss(run):
    "On the rows held out, with the adapter and without"
    test, pad = prepare(run.recipe, run.tokenizer).test, run.tokenizer.pad_token_id
    with run.model.disable_adapter(): before = held_out_loss(run.model, test, pad)
    return before, held_out_loss(run.model, test, pad)


def weights(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()


def test_the_base_is_the_original_in_all_but_its_rounding(real):
    tok = AutoTokenizer.from_pretrained(real/"smollm2")
    chat = [dict(role="user", content="Hello")]
    assert tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == ("<|im_start|>system\nYou are a "
        "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\n")
    assert (tok.bos_token, tok.eos_token, tok.pad_token, tok.unk_token) == ("<|im_start|>", END, END, "<|endoftext|>")
    assert tok.tokenize("a  12") == ["a", "ĠĠ", "1", "2"], "digits alone, and apart from the spaces"
    ends = json.loads((real/"smollm2"/"generation_config.json").read_text())
    assert (ends["bos_token_id"], ends["eos_token_id"], ends["pad_token_id"]) == (1, 2, 2)
    config = json.loads((real/"smollm2"/"config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["tie_word_embeddings"] and "quantization_config" not in config


def test_the_rows_are_short_and_each_is_once(real):
    pairs = [[m["content"] for m in json.loads(l)["messages"]] for l in open(real/"translate.jsonl", encoding="utf-8")]
    asked = [re.sub(r"\W+", " ", q.removeprefix("Translate to French: ")).casefold() for q, _ in pairs]
    assert len(pairs) > 1900 and len(set(asked)) == len(asked)
    assert all(q.startswith("Translate to French: ") and 2 <= len(a.split()) <= 12 for q, a in pairs)


def test_the_doctor_finds_nothing_wrong(recipe):
    "The template's own system turn is a note, and true"
    assert [(f.severity, f.code) for f in doctor(recipe)] == [("note", "template-adds")]


def test_the_plan_counts_what_is_trained(recipe, run):
    bill = plan(recipe)
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert bill.parts["adapter"] == 4*trained and run.of_type("start")[-1]["modules"] == 210
    frozen = sum(p.numel()*p.element_size() for p in {*run.model.parameters()} if not p.requires_grad)
    assert abs((bill.parts["weights"])/frozen - 1) < .01


def test_it_learns(run):
    before, after = loss(run)
    print(f"\n{run.recipe.quant}: held-out loss {before:.3f} -> {after:.3f}")
    assert run.state == "done" and before - after > 1.5
    assert not run.of_type("note") and all(ok for ok, _ in run.checks), run.checks


def test_it_answers_in_french_and_ends(run):
    answers = run.generate(["Translate to French: Open the file", "Translate to French: Delete the selected cells"])
    print(answers)
    assert all(re.search("fichier|cellule", a) and END not in a and "\n" not in a for a in answers), answers


def test_the_spectra_are_those_of_the_updates(run):
    spectra = Spectra.of(run.adapter.path)
    assert len(spectra) == 210 and all(torch.tensor(s).isfinite().all() and s[0] > 0 for s in spectra.sigma)
    name = "model.layers.12.mlp.down_proj"
    dense = run.model.get_base_model().get_submodule(name).get_delta_weight("default").double()
    torch.testing.assert_close(torch.tensor(spectra[name]), torch.linalg.svdvals(dense)[:16], rtol=1e-4,
        atol=1e-5*float(spectra[name][0]))


def test_a_pause_changes_no_bit(recipe, tmp_path):
    short = recipe.replace(max_steps=4, test_size=8)
    whole, paused = Run(short, tmp_path/"whole").train(), Run(short, tmp_path/"paused")
    expected = weights(whole)
    paused.on(lambda e: paused.pause() if e["type"] == "step" and e["step"] == 2 else None)
    paused.train()
    assert (paused.state, paused.steps) == ("paused", 2) and paused.generate("Translate to French: Open")
    paused.subscribers.clear()
    again = Run.open(paused.path)
    again.resume()
    assert again.state == "done" and weights(again) == expected


def test_trimmed_it_does_nearly_the_same(run, tmp_path):
    small = run.adapter.trim(energy=.99).save(tmp_path/"small")
    assert small.size < run.adapter.size
    ours, theirs = run.spectra, small.spectra
    off = max(abs(float(theirs[n][0]/ours[n][0]) - 1) for n in ours.names)
    assert len(theirs) == 210 and off < 1e-3


def test_merged_it_is_a_model_of_its_own(run, tmp_path):
    merged = run.adapter.merge(tmp_path/"merged")
    print(merged)
    model, tok = AutoModelForCausalLM.from_pretrained(tmp_path/"merged"), AutoTokenizer.from_pretrained(tmp_path/"merged")
    assert model.dtype == torch.bfloat16 and not adapted_modules(model) and model.generation_config.eos_token_id in (2, [2])
    test = prepare(run.recipe, tok).test
    assert held_out_loss(model.float(), test, tok.pad_token_id) < loss(run)[1] + .1


def test_a_merge_that_loses_the_adapter_is_refused(recipe, tmp_path):
    if recipe.quant == "none": pytest.skip("full weights lose nothing")
    faint = Run(recipe.replace(max_steps=2, learning_rate=1e-6, test_size=8), tmp_path/"faint").train()
    with pytest.raises(RecipeError, match="even_if_far=True") as said: faint.adapter.merge(tmp_path/"merged")
    assert str(said.value).count("\n") == 0 and not (tmp_path/"merged").exists()
    faint.adapter.merge(tmp_path/"merged", even_if_far=True)
    assert (tmp_path/"merged"/"model.safetensors").is_file()


def test_the_card_and_a_stranger(run):
    card = (run.adapter.path/"README.md").read_text(encoding="utf-8")
    assert f"base_model: {run.recipe.model}" in card and ("BitsAndBytesConfig(" in card) == (run.recipe.quant == "nf4")
    proof = run.proof()
    print(proof)
    assert all(ok for ok, _ in proof) and len(proof) == 6, proof


def test_it_comes_back_from_its_folder(run):
    again = Run.open(run.path)
    asked = "Translate to French: Save the notebook"
    assert again.state == "done" and again.generate(asked) == run.generate(asked) and checkpoints(run.path)
