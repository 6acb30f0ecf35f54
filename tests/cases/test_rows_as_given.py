"Same rows, same tokens, whatever holds them; and what a row says of itself is obeyed or refused by name"
import datasets, pandas as pd, pytest

from loranb import doctor
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.data import label_names, rows_of
from loranb.train.run import Run
from small import CHATML, CONTENT, STILL, chat, llama, refusal, tokenizer, write_rows, written

CHATS = [chat(f"say {w} {i}", w) for i, w in enumerate(("one", "two", "four", "blue")*10)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "A base's folder and its tokenizer"
    home = tmp_path_factory.mktemp("base")
    llama(home)
    return home, tokenizer(home)


# What holds them

HOLDERS = dict(list=lambda rows: rows, dataframe=pd.DataFrame, dataset=datasets.Dataset.from_list)


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_adapter_of_rows_in_memory_can_be_merged(holder, base, tmp_path):
    run = Run(Recipe(model=str(base[0]), data=HOLDERS[holder](CHATS), max_length=64, **STILL), tmp_path/"out").train()
    for i, adapter in enumerate((run.adapter, Run.open(tmp_path/"out").adapter)):
        assert (adapter.merge(tmp_path/f"merged-{i}").path/"model.safetensors").is_file()


def test_an_adapter_can_be_merged_in_another_working_directory(base, tmp_path, monkeypatch):
    for name in ("here", "there"): (tmp_path/name).mkdir()
    monkeypatch.chdir(tmp_path/"here")
    write_rows(tmp_path/"here"/"d.jsonl", CHATS)
    run = Run(Recipe(model=str(base[0]), data="d.jsonl", max_length=64, **STILL), tmp_path/"out").train()
    monkeypatch.chdir(tmp_path/"there")
    assert (run.adapter.merge(tmp_path/"merged").path/"model.safetensors").is_file()


def calls(name, **arguments):
    said = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": None,
        "tool_calls": [said]}]}


@pytest.mark.parametrize("holder", ["parquet", "dataset", "table", "dataframe"])
def test_calls_are_the_same_whatever_holds_them(holder, base, tmp_path):
    llama(tmp_path)
    tok = tokenizer(tmp_path, CHATML.replace(CONTENT, CONTENT + "{% for c in m['tool_calls'] or [] %}CALL "
        "{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}{% endfor %}"))
    rows = [calls("get_weather", city="Paris"), calls("call", user="one")]*10
    made = datasets.Dataset.from_list(rows)
    made.to_parquet(str(tmp_path/"x.parquet"))
    held = dict(parquet=lambda: str(tmp_path/"x.parquet"), dataset=lambda: made, table=lambda: made.data.table,
        dataframe=lambda: pd.read_parquet(tmp_path/"x.parquet"))[holder]()
    by = lambda data: written(tok, Recipe(model=str(tmp_path), data=data, test_size=0, quant="none"))[1]
    assert by(held) == by(rows) == 'CALL get_weather {"city": "Paris"}<|im_end|>'


# Labels

NAMES = ["World", "Sports", "Business"]


@pytest.fixture(scope="module")
def labelled():
    f = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"text": [f"say {i}" for i in range(60)], "label": [0, 1, 2, -1, 0, 1]*10}, f)


def classifier(base, data, **more):
    return Recipe(model=str(base[0]), data=data, task_type="SEQ_CLS", quant="none", test_size=0, **more)


def test_no_label_is_no_label(base, labelled):
    found = [f for f in doctor(classifier(base, labelled)) if f.code == "bad-rows"]
    assert found and found[0].severity == "error" and found[0].count == 10


@pytest.mark.parametrize("holder", ["dataset", "parquet"])
def test_labels_keep_the_order_of_their_data_set(holder, base, labelled, tmp_path):
    labelled.to_parquet(str(tmp_path/"x.parquet"))
    data = labelled if holder == "dataset" else str(tmp_path/"x.parquet")
    assert label_names(rows_of(classifier(base, data, acknowledged=["bad-rows"]))) == NAMES


def test_the_doctor_says_that_a_writer_reads_no_label(base):
    rows = [dict(text=f"say {i}", label=["good", "bad"][i % 2]) for i in range(40)]
    found = doctor(Recipe(model=str(base[0]), data=rows, quant="none", test_size=0))
    assert any("label" in f.detail and "SEQ_CLS" in f.remedy for f in found)


# What a row says of itself

def two(**told):
    return {"messages": [{"role": "user", "content": "say one"}, {"role": "assistant", "content": "two", **told},
        {"role": "user", "content": "say it"}, {"role": "assistant", "content": "one"}]}


TOLD = {"weight": two(weight=0), "train": two(train=False), "label": {"prompt": "say one:", "completion": " two",
    "label": False}}


@pytest.mark.parametrize("name", TOLD)
def test_what_shall_not_be_learned_is_refused_by_name(name, base, tmp_path):
    recipe = Recipe(model=str(base[0]), data=[TOLD[name]]*20, test_size=0, max_length=64, **STILL)
    said = refusal(lambda: Run(recipe, tmp_path/"out").train())
    assert f"{name!r}" in said and "row 1" in said and not (tmp_path/"out").exists()


def say(who, what): return {"from": who, "value": what}


SIDES = {"chosen after turns": ("chosen", dict(conversations=[say("human", "what is it"), say("gpt", "four"),
    say("human", "say it")], chosen=say("gpt", "blue"), rejected=say("gpt", "two"))),
    "chosen at first": ("chosen", dict(conversations=[say("human", "say it")], chosen=say("gpt", "blue"),
    rejected=say("gpt", "two"))), "a summary": ("summary", dict(document="what is it sky red", summary="blue"))}


@pytest.mark.parametrize("name", SIDES)
def test_the_side_that_is_meant_is_learned_or_refused_by_name(name, base):
    column, row = SIDES[name]
    recipe = Recipe(model=str(base[0]), data=[row]*20, quant="none", test_size=0)
    try: said = written(base[1], recipe)[1]
    except RecipeError as e: said = str(e) if f"{column!r}" in str(e) else ""
    assert "blue" in said or column in said
