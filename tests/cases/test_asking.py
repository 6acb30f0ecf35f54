"What is asked after the training is what was trained: the template, its tools, the tokens that end a turn, the layers"
import json

import pytest, torch
import transformers as T

from loranb import doctor
from loranb.core.recipe import Recipe
from loranb.models.lora import adapted_modules, attach
from loranb.models.loading import load_base
from loranb.train.run import Run
from small import (
    CHATML, CONTENT, STILL, chat, llama, prompts_of, refusal, save, shape, speaker, tokenizer, write_rows, written)

WORDS = ("one", "two", "four", "blue")
CHATS = [chat(f"say {w} {i}", w) for i, w in enumerate(WORDS*10)]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]
ASK = {"role": "user", "content": "what is it in Paris"}


def call(**arguments):
    return {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}


# Where a turn ends

@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    "A run on a base whose tokenizer ends with <|endoftext|>, and whose template ends a turn with <|im_end|>"
    home = tmp_path_factory.mktemp("endless")
    tok = tokenizer(home, eos="<|endoftext|>")
    speaker(home, tok, "one<|im_end|>", eos_token_id=3)
    data = write_rows(home/"d.jsonl", [chat(f"say {i}", "one") for i in range(40)])
    return Run(Recipe(model=str(home), data=data, max_length=64, **STILL), home/"out").train()


def test_an_answer_stops_where_a_learned_turn_ends(endless):
    assert endless.generate("say 3") == "one"


def test_samples_stop_where_a_learned_turn_ends(endless):
    assert {o["answer"] for o in endless.of_type("sample")[-1]["rows"]} == {"one"}


def test_a_merged_model_stops_where_a_learned_turn_ends(endless, tmp_path):
    endless.adapter.merge(tmp_path/"merged")
    tok = T.AutoTokenizer.from_pretrained(tmp_path/"merged")
    model = T.AutoModelForCausalLM.from_pretrained(tmp_path/"merged")
    ids = tok.apply_chat_template(chat("say 3", "")["messages"][:1], add_generation_prompt=True, return_tensors="pt",
        return_dict=True)
    new = model.generate(**ids, max_new_tokens=12, do_sample=False)[0][ids["input_ids"].shape[1]:]
    assert tok.decode(new) == "one<|im_end|>" and tok.eos_token == "<|im_end|>"


# Tools

CALLING = ("{% if tools %}<|im_start|>system\ntools: {{ tools | tojson }}<|im_end|>\n{% endif %}" + CHATML.replace(
    CONTENT, CONTENT + "{% for c in m['tool_calls'] or [] %}CALL {{ c['function']['name'] }} "
    "{{ c['function']['arguments'] | tojson }}{% endfor %}"))


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory):
    "A run on rows with tools, and all prompts that its model was given"
    home = tmp_path_factory.mktemp("tools")
    speaker(home, tokenizer(home, CALLING), "one<|im_end|>")
    row = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [call()]}], "tools": TOOLS}
    recipe = Recipe(model=str(home), data=write_rows(home/"d.jsonl", [row]*20), max_length=256, **STILL)
    with prompts_of() as asked: run = Run(recipe, home/"out").train()
    return run, asked


def asked_in_training(run):
    "The tokens of a held-out row before the first that is learned"
    row = run._data.test[0]
    return row.input_ids[:next(i for i, o in enumerate(row.labels) if o != -100)]


def test_samples_are_asked_as_they_are_trained(with_tools):
    run, asked = with_tools
    assert asked and all(o == asked_in_training(run) for o in asked)


def test_the_target_of_a_sample_shows_the_call(with_tools):
    run, _ = with_tools
    assert all("get_weather" in o["target"] for o in run.of_type("sample")[-1]["rows"])


def test_a_text_is_asked_as_the_prompts_were_trained(tmp_path):
    speaker(tmp_path, tokenizer(tmp_path), "one<|im_end|>")
    rows = [dict(prompt="say one:", completion=" one")]*20
    run = Run(Recipe(model=str(tmp_path), data=rows, max_length=64, **STILL), tmp_path/"out").train()
    with prompts_of() as asked: run.generate("say one:")
    assert asked == [asked_in_training(run)]


# What a template leaves out

THOUGHT = "one and one it is two"
NONE_CALLS = CHATML.replace(CONTENT, "{% if m['content'] is none %}CALL {{ m['tool_calls'][0]['function']['name'] }}"
    "{% else %}{{ m['content'] }}{% endif %}")
BARE_CALL = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [call(city="Paris")]}],
    "tools": TOOLS}
LEFT_OUT = {"a call": (CHATML, BARE_CALL), "a call that the template writes where content is none": (NONE_CALLS,
    BARE_CALL), "a call behind words": (CHATML, {"messages": [ASK, {"role": "assistant", "content": "say",
    "tool_calls": [call(city="Paris")]}], "tools": TOOLS}), "tools": (CHATML, {**chat("say one", "one"),
    "tools": TOOLS}), **{f"a thought called {name}": (CHATML, {"messages": [ASK, {"role": "assistant", name: THOUGHT,
    "content": "two"}]}) for name in ("reasoning_content", "reasoning", "thinking")}}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_doctor_names_the_rows_whose_tools_or_thoughts_are_left_out(name, tmp_path):
    template, row = LEFT_OUT[name]
    tok = tokenizer(tmp_path, template)
    llama(tmp_path)
    recipe = Recipe(model=str(tmp_path), data=[row]*20, test_size=0, quant="none")
    word = THOUGHT if THOUGHT in json.dumps(row) else "get_weather"
    found = [f for f in doctor(recipe) if f.code.startswith("template")]
    assert word in written(tok, recipe)[0] or any(f.rows for f in found)


JOINING = {"joins": "{{ c['function']['name'] + '\\n' + c['function']['arguments'] }}",
    "prints": "{{ c['function']['name'] }}\n{{ c['function']['arguments'] }}"}


@pytest.mark.parametrize("how", JOINING)
def test_arguments_stay_text_where_the_template_wants_text(how, tmp_path):
    tok = tokenizer(tmp_path, CHATML.replace(CONTENT, CONTENT + "{% for c in m['tool_calls'] or [] %}CALL "
        + JOINING[how] + "{% endfor %}"))
    llama(tmp_path)
    said = call()
    said["function"]["arguments"] = '{"city": "Paris"}'
    row = {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [said]}]}
    recipe = Recipe(model=str(tmp_path), data=[row]*20, test_size=0, quant="none", acknowledged=["template-refuses"])
    assert not [f for f in doctor(recipe) if f.code == "template-refuses"]
    assert written(tok, recipe)[0] == tok.apply_chat_template(row["messages"], tokenize=False)


# What the checkpoint lacks

S = dict(vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=66, pad_token_id=0)
TEXTS = [dict(text=f"{w} sky {i}", label=l) for i, (w, l) in enumerate([("blue", "good"), ("call", "bad")]*20)]
LACKING = dict(bert=(lambda: T.BertForMaskedLM(T.BertConfig(**S)), ["query", "value"]),
    deberta=(lambda: T.DebertaV2ForMaskedLM(T.DebertaV2Config(**S, pooler_hidden_size=64)),
    ["query_proj", "value_proj"]), albert=(lambda: T.AlbertForMaskedLM(T.AlbertConfig(**S, embedding_size=64)),
    ["query", "value"]), bart=(lambda: T.BartForConditionalGeneration(T.BartConfig(vocab_size=500, d_model=64,
    encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
    decoder_ffn_dim=128, max_position_embeddings=66, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    decoder_start_token_id=3)), ["q_proj", "v_proj"]),
    t5=(lambda: T.T5ForConditionalGeneration(T.T5Config(vocab_size=500, d_model=64, d_kv=16, d_ff=128, num_layers=2,
    num_heads=4, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0)), ["q", "v"]),
    xlnet=(lambda: T.XLNetLMHeadModel(T.XLNetConfig(vocab_size=500, d_model=64, n_layer=2, n_head=4, d_inner=128,
    pad_token_id=0)), ["layer_1"]), roberta=(lambda: T.RobertaForMaskedLM(T.RobertaConfig(**S)), ["query", "value"]))
@pytest.mark.parametrize("kind", LACKING)
def test_a_stranger_loads_the_classifier_that_was_trained(kind, tmp_path):
    from peft import PeftModel
    from tokenizers.processors import TemplateProcessing
    make, targets = LACKING[kind]
    tok = tokenizer(tmp_path, None, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[SEP]", "[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", unk_token="[UNK]")
    tok._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tok.save_pretrained(tmp_path)
    torch.manual_seed(0)
    save(make(), tmp_path)
    run = Run(Recipe(model=str(tmp_path), data=TEXTS, task_type="SEQ_CLS", target_modules=targets, max_length=64,
        dtype="float32", **{**STILL, "max_steps": 2, "learning_rate": 1e-2}), tmp_path/"out").train()
    ids = torch.tensor([tok("blue sky one")["input_ids"]])
    def by_a_stranger(seed):
        torch.manual_seed(seed)
        base = T.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=2)
        base.config.pad_token_id = 0
        return PeftModel.from_pretrained(base, run.adapter.path).eval()(input_ids=ids).logits
    with torch.no_grad(): ours = run.model.eval()(input_ids=ids).logits
    assert all((by_a_stranger(seed) - ours).abs().max() < 1e-5 for seed in (1, 2))


def test_a_writer_without_its_head_is_refused_or_saved_with_it(tmp_path):
    from peft import PeftModel
    tok = tokenizer(tmp_path)
    save(llama(tmp_path/"whole", tie_word_embeddings=False).model, tmp_path)
    run = Run(Recipe(model=str(tmp_path), data=CHATS, max_length=64, target_modules=["q_proj"], **STILL),
        tmp_path/"out")
    if "lm_head" in refusal(run.train): return
    torch.manual_seed(7)
    theirs = PeftModel.from_pretrained(T.AutoModelForCausalLM.from_pretrained(tmp_path), run.adapter.path).eval()
    ids = tok("say one", return_tensors="pt")["input_ids"]
    with torch.no_grad(): assert (theirs(ids).logits - run.model.eval()(ids).logits).abs().max() < 1e-5


# Which layers, which loss

def test_no_layer_of_a_tower_without_text_is_adapted(tmp_path):
    tokenizer(tmp_path)
    torch.manual_seed(0)
    save(T.Gemma3ForConditionalGeneration(T.Gemma3Config(text_config=shape(head_dim=16, sliding_window=64),
        vision_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, vision_use_head=False), mm_tokens_per_image=4, image_token_index=499,
        boi_token_index=498, eoi_token_index=497)), tmp_path)
    recipe = Recipe(model=str(tmp_path), quant="none", r=4)
    adapted = adapted_modules(attach(load_base(recipe)[0], recipe))
    assert adapted and not [n for n in adapted if "vision" in n]


def test_the_routers_loss_is_a_part_of_the_loss(tmp_path):
    from loranb.data import collate, prepare
    tok = tokenizer(tmp_path)
    torch.manual_seed(0)
    save(T.MixtralForCausalLM(T.MixtralConfig(**shape(intermediate_size=64), num_local_experts=4,
        output_router_logits=True, router_aux_loss_coef=.5)), tmp_path)
    recipe = Recipe(model=str(tmp_path), data=CHATS[:4], test_size=0, max_length=64, **STILL)
    run = Run(recipe, tmp_path/"out").train()
    theirs = T.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad(): loss = theirs(**collate(prepare(recipe, tok).train[:], tok.pad_token_id)).loss
    assert run.of_type("step")[0]["loss"] == pytest.approx(float(loss), abs=1e-3)


# Going on from an adapter

@pytest.fixture(scope="module")
def sorted_out(tmp_path_factory):
    "A classifier whose labels are not in the order of the alphabet"
    home = tmp_path_factory.mktemp("labels")
    tokenizer(home, None)
    llama(home)
    rows = [dict(text=f"{w} {i}", label=l) for i, (w, l) in enumerate([("blue", "World"), ("red", "Sports"),
        ("one", "Business")]*12)]
    recipe = Recipe(model=str(home), data=write_rows(home/"d.jsonl", rows), task_type="SEQ_CLS", max_length=64,
        labels=["World", "Sports", "Business"], **STILL)
    return recipe, Run(recipe, home/"out").train().adapter


def test_an_adapter_with_other_labels_is_refused_by_name(sorted_out, tmp_path):
    recipe, before = sorted_out
    other = recipe.replace(adapter_name_or_path=str(before.path), labels=["Business", "Sports", "World"])
    said = refusal(lambda: Run(other, tmp_path/"out").train())
    assert "labels" in said and "World" in said


def test_labels_that_are_not_given_are_those_of_the_adapter(sorted_out, tmp_path):
    recipe, before = sorted_out
    on = Run(recipe.replace(adapter_name_or_path=str(before.path), labels=None), tmp_path/"out").train()
    assert on.recipe.labels == recipe.labels


def test_an_adapter_of_another_base_is_said(tmp_path):
    a, b = tmp_path/"a", tmp_path/"b"
    for seed, home in enumerate((a, b)): tokenizer(home); llama(home, seed=seed)
    recipe = Recipe(model=str(a), data=CHATS, max_length=64, **STILL)
    one = Run(recipe, tmp_path/"one").train()
    two = Run(recipe.replace(model=str(b), adapter_name_or_path=str(one.adapter.path)), tmp_path/"two").train()
    assert any(str(a) in e["message"] for e in two.of_type("note"))
