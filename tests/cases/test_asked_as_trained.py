"""Whoever asks an adapter gets one answer: `run.generate`, the samples, the card's lines, the merged model and its pipeline.

Twelve templates with tools, thoughts, a system message, or none of these. The last three ask in a process that never imports loranb.
"""
import json, subprocess, sys

import pytest

from loranb import DataError
from loranb.core.recipe import Recipe
from loranb.train.run import Run
from small import STILL, llama, tokenizer
from templates import ALL

NAMES = ("chatml (Yi)", "chatml, pad token ends (eos is not the end of turn)", "Llama 2", "Llama 3",
    "Llama 3.1, tools in the first question", "Mistral v3, system and tools in the last question", "Gemma 2, no system",
    "Phi 3, another end for the whole chat", "Qwen 2.5, a system prompt of its own", "Qwen 3, thoughts of the past are gone",
    "DeepSeek R1, thoughts are never kept", "GLM 4, the next header ends a turn")
ASK, QUESTION = "what is it in Paris", dict(role="user", content="what is it in Paris")
TOOLS = [dict(type="function", function=dict(name="get_weather", description="Weather", parameters=dict(type="object",
    properties={})))]


def answered(text): return [QUESTION, dict(role="assistant", content=text)]


KINDS = dict(none=dict(messages=answered("blue sky")), tools=dict(messages=answered("blue sky"), tools=TOOLS),
    thoughts=dict(messages=answered("<think>\nsay one\n</think>\n\nblue sky")),
    system=dict(messages=[dict(role="system", content="say two"), *answered("blue sky")]))

STRANGER = r"""
import json, re, sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
found = {}
for home in map(Path, sys.argv[2:]):
    loads, asks = re.findall(r"```python\n(.*?)```", (home/"run"/"adapter"/"README.md").read_text(), re.S)[:2]
    asks = asks.replace('question = "Hello"', "question = 'what is it in Paris'")
    card, merged = {}, dict(model=AutoModelForCausalLM.from_pretrained(home/"merged"),
        tokenizer=AutoTokenizer.from_pretrained(home/"merged"))
    exec(loads.replace('"PATH-OF-THIS-FOLDER"', repr(str(home/"run"/"adapter"))), card)
    exec(asks, card)
    exec(asks, merged)
    found[str(home)] = dict(card=card["answer"], merged=merged["answer"])
    if "tools=" not in asks:
        speak = pipeline("text-generation", model=merged["model"], tokenizer=merged["tokenizer"])
        found[str(home)]["pipeline"] = speak(merged["messages"], max_new_tokens=64, do_sample=False,
            return_full_text=False)[0]["generated_text"]
assert "loranb" not in sys.modules
json.dump(found, open(sys.argv[1], "w"))
"""


def trained(name, kind, home):
    "What a run and its samples answer; `run` and `merged` lie in `home` then"
    case = ALL[name]
    marks = [o for o in dict.fromkeys(["<|pad|>", case.bos, case.eos, *case.specials]) if o]
    tok = tokenizer(home/"base", case.template, specials=marks, eos=case.eos, bos_token=case.bos)
    llama(home/"base", eos_token_id=tok.eos_token_id, bos_token_id=tok.bos_token_id)
    recipe = Recipe(model=str(home/"base"), data=[KINDS[kind]]*12, max_length=256, acknowledged=["duplicates"],
        **STILL)
    run = Run(recipe, home/"run").train()
    run.adapter.merge(home/"merged")
    sample = run.of_type("sample")[-1]["rows"][0]
    return dict(generate=run.generate(ASK, max_new_tokens=64), sample=sample["answer"], asked=sample["prompt"])


IN_CI = NAMES[1::4]


def when(name):
    "What a template's tests are marked with"
    return pytest.mark.slow if name in IN_CI else pytest.mark.matrix


@pytest.fixture(scope="module")
def answers(tmp_path_factory, matrix):
    "By template and kind: what each who asks was answered"
    found, homes = {}, {}
    for name in NAMES if matrix else IN_CI:
        for kind in KINDS:
            home = tmp_path_factory.mktemp("asked")
            try: found[name, kind] = trained(name, kind, home)
            except DataError as e: found[name, kind] = str(e); continue
            homes[name, kind] = str(home)
    out = tmp_path_factory.mktemp("found")/"found.json"
    done = subprocess.run([sys.executable, "-c", STRANGER, str(out), *homes.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for key, by in json.loads(out.read_text()).items():
        found[next(k for k, home in homes.items() if home == key)] |= by
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=when(n)) for n in NAMES])
def test_whoever_asks_gets_one_answer(name, kind, answers):
    found = answers[name, kind]
    if isinstance(found, str): return print(found)
    one = found["generate"].strip()
    told = {k: v.strip() for k, v in found.items() if k not in ("sample", "asked")}
    assert told == dict.fromkeys(told, one)
    assert found["asked"] == ASK and one.startswith(found["sample"].strip())
