"Each of the doctor's codes is found where it is, and nowhere else; errors stop a run until they are acknowledged."
import json, pathlib, re

import pytest

from loranb import Finding, doctor
from loranb.models import petit
from loranb.models.hub import load_tokenizer
from loranb.data.findings import CODES, SAMPLE, SECRETS, SEVERITIES, Findings, mask_secret
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.data.sources import DataError
from loranb.train.run import Run

GOOD = [{"messages": [{"role": "user", "content": f"Is {i} even?"},
    {"role": "assistant", "content": "Yes, it is." if i%2 == 0 else "No, it is odd."}]} for i in range(40)]
TEMPLATE = load_tokenizer(petit.path()).chat_template


def chat(*turns): return {"messages": [{"role": r, "content": c} for r, c in turns]}
def said(text): return chat(("user", "Say it."), ("assistant", text))
def found(rows, template=TEMPLATE, **fields):
    tok = load_tokenizer(petit.path())
    tok.chat_template = template
    return {f.code: f for f in doctor(Recipe(data=rows, test_size=0, **fields), tok)}


LETTERS = [dict(text=f"{w} letter {i}", label=w) for i in range(20) for w in ("kind", "rude")]

# code: (rows, template, fields, severity, count, first rows)
CASES = {
    "bad-rows": (GOOD + [{"messages": None}], TEMPLATE, {}, "error", 1, (41,)),
    "template-missing": (GOOD, None, {}, "error", 40, (1, 2, 3, 4, 5)),
    "template-refuses": (GOOD + [chat(("user", "a"), ("user", "b"), ("assistant", "c"))], "{% for m in messages %}{% if loop.index0 and messages[loop.index0 - 1].role == m.role %}{{ raise_exception('Roles must alternate.') }}{% endif %}{% endfor %}" + TEMPLATE, {}, "error", 1, (41,)),
    "template-foreign": (GOOD, "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", {}, "warning", 40, (1, 2, 3, 4, 5)),
    "template-changes": (GOOD + [chat(("user", "a"), ("assistant", "<think>hm</think>b"), ("user", "c"), ("assistant", "d"))], TEMPLATE.replace("{% generation %}{{ m['content'] }}", "{% generation %}{{ m['content'].split('</think>')[-1] }}"), {}, "warning", 1, (41,)),
    "template-adds": (GOOD, "<s>You are a helpful assistant of the house.\n" + TEMPLATE.removeprefix("<s>"), {}, "note", 40, (1, 2, 3, 4, 5)),
    "nothing-learned": (GOOD + [chat(("user", "Word "*200), ("assistant", "Yes."))], TEMPLATE, dict(max_length=64), "error", 1, (41,)),
    "end-not-learned": (GOOD, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}", {}, None, 0, ()),
    "answer-cut": (GOOD*20 + [said("Word "*200)], TEMPLATE, dict(max_length=64), "warning", 1, (801,)),
    "two-bos": ([{"text": f"<s><s>{i}"} for i in range(9)], TEMPLATE, {}, "error", 9, (1, 2, 3, 4, 5)),
    "duplicates": (GOOD + GOOD[3:5], TEMPLATE, {}, "warning", 2, (41, 42)),
    "roles-order": (GOOD + [chat(("user", "a"), ("user", "b"), ("assistant", "c")), chat(("assistant", "a")), chat(("user", "a"), ("assistant", "b"), ("user", "c"))], TEMPLATE, {}, "warning", 3, (41, 42, 43)),
    "empty-turn": (GOOD + [chat(("user", " "), ("assistant", "c"))], TEMPLATE, {}, "warning", 1, (41,)),
    "short-rows": ([said("Word "*100 + str(i)) for i in range(9)] + [chat(("user", "a"), ("assistant", "b"))], TEMPLATE, {}, "note", 1, (10,)),
    "long-rows": (GOOD + [said("Word "*300)], TEMPLATE, dict(max_length=2000), "note", 1, (41,)),
    "left-out": (GOOD + [said("Word "*200)], TEMPLATE, dict(max_length=64, drop_overlong=True), "note", 1, (41,)),
    "secrets": (GOOD + [said("AKIA" + "ABCDEFGHIJKLMNOP")], TEMPLATE, {}, "warning", 1, (41,)),
    "emails": (GOOD + [said("Write to anna@example.org.")], TEMPLATE, {}, "warning", 1, (41,)),
    "columns-dropped": ([{**r, "id": i} for i, r in enumerate(GOOD)], TEMPLATE, {}, "note", 40, ()),
    "rows-repaired": (GOOD + [chat(("User", "a"), ("assistant", "b"))], TEMPLATE, {}, "note", 1, (41,)),
    "formats-mixed": (GOOD + [{"question": "a", "answer": "b"}], TEMPLATE, {}, "note", 41, ()),
    "text-cut": ([{"text": f"{i} " + "Word "*(100 if i == 3 else 1)} for i in range(9)], TEMPLATE, dict(max_length=64), "warning", 1, (4,)),
    "label-unknown": (LETTERS + [dict(text="a last letter", label="kidn")], TEMPLATE, dict(task_type="SEQ_CLS", labels=["kind", "rude"]), "error", 1, (41,)),
    "label-contradicts": (LETTERS + [dict(text="kind letter 0", label="rude")], TEMPLATE, dict(task_type="SEQ_CLS"), "warning", 2, (1, 41)),
    "label-alike": (LETTERS + [dict(text=f"a letter {i}", label="Kind ") for i in range(5)], TEMPLATE, dict(task_type="SEQ_CLS"), "warning", 25, (1, 3, 5, 7, 9)),
    "label-rare": (LETTERS + [dict(text="a last letter", label="odd")], TEMPLATE, dict(task_type="SEQ_CLS"), "warning", 1, (41,)),
    "template-drops": ([{**r, "tools": [{"name": "is_even"}]} for r in GOOD[:3]] + GOOD, TEMPLATE, {}, "warning", 3, (1, 2, 3)),
    "answer-unread": ([dict(text=f"text {i}", summary=f"sum {i}") for i in range(9)], TEMPLATE, {}, "warning", 9, ()),
    "label-unread": (LETTERS, TEMPLATE, {}, "warning", 40, (1, 2, 3, 4, 5)),
    "chosen-side": ([{"chosen": r["messages"], "rejected": r["messages"]} for r in GOOD], TEMPLATE, {}, "note", 40, ()),
}


@pytest.mark.parametrize("code", CASES)
def test_each_code(code):
    rows, template, fields, severity, count, first = CASES[code]
    f = found(rows, template, **fields).get(code)
    if severity is None: assert f is None  # an end token is put behind the last turn of a template that has none
    else:
        assert (f.severity, f.count, f.rows) == (severity, count, first), f
        assert f.remedy and f.severity in SEVERITIES and str(f).startswith(f"{severity} {code}: ") and "\n" not in str(f)
    assert not found(GOOD)


def test_every_code_is_documented_and_tried():
    assert set(CASES) | {"overlap", "not-round-trip"} == set(CODES)
    book = pathlib.Path(__file__).parents[1]/"nbs/03_data/08_findings.ipynb"
    if book.exists():
        table = next("".join(c["source"]) for c in json.loads(book.read_text())["cells"]
            if "| code | severity |" in "".join(c["source"]))
        assert set(re.findall(r"`([a-z-]+)`", table)) == set(CODES)


def test_a_classifier_has_a_doctor():
    assert not found(LETTERS, task_type="SEQ_CLS")
    f = found(LETTERS + [dict(text="no label"), dict(text="none", label="")], task_type="SEQ_CLS")["bad-rows"]
    assert (f.severity, f.count, f.rows, f.detail) == ("error", 2, (41, 42), "they have no label")
    f = found(LETTERS, task_type="SEQ_CLS", min_length=1000)["left-out"]
    assert (f.severity, f.count) == ("error", 40)
    assert found(LETTERS + [dict(text="Word "*300, label="kind")], task_type="SEQ_CLS",
        max_length=64)["text-cut"].rows == (41,)
    assert "duplicates" in found(LETTERS + LETTERS[:1], task_type="SEQ_CLS")


def test_a_classifier_without_a_label(tmp_path):
    recipe = Recipe(data=LETTERS + [dict(text="no label")], task_type="SEQ_CLS", max_steps=1, test_size=4)
    with pytest.raises(DataError, match=r"bad-rows: .*row 41.*they have no label"): Run(recipe, tmp_path/"run").train()
    run = Run(recipe.replace(acknowledged=["bad-rows"]), tmp_path/"run").train()
    assert run.recipe.labels == ["kind", "rude"] and len(run._data.rows) + len(run._data.test_rows) == 40


def test_what_a_classifier_leaves_out(tmp_path):
    from loranb.data.encoding import tokens
    from loranb import lr_find
    rows = LETTERS + [dict(text="Word "*300, label="kind")]*4
    kept = tokens(Recipe(data=rows, task_type="SEQ_CLS", max_length=64, drop_overlong=True, test_size=0))
    assert len(kept) == 40 and {l[-1] for l in kept["labels"]} == {0, 1} and all(set(l[:-1]) == {-100}
        for l in kept["labels"])
    with pytest.raises(RecipeError, match="min_length: min_length=9999 and max_length=64 leave none of 44 rows"):
        tokens(Recipe(data=rows, task_type="SEQ_CLS", max_length=64, min_length=9999, test_size=0))
    assert lr_find(Recipe(data=LETTERS, task_type="SEQ_CLS", test_size=0), steps=10) is not None


def test_nothing_is_left_to_train_on(tmp_path):
    for name in ("train", "test"): (tmp_path/f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in GOOD))
    recipe = Recipe(data=str(tmp_path), test_split="test", deduplicate=True)
    doctor(recipe)
    from loranb.data.encoding import tokens
    with pytest.raises(RecipeError, match="test_split: every row is held out as well"): tokens(recipe)


def test_an_end_that_is_not_learned():
    f = found([{"prompt": "a =", "completion": " b"} for _ in range(3)])
    assert "end-not-learned" not in f
    tok = load_tokenizer(petit.path())
    tok.chat_template = ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if "
        "add_generation_prompt %}assistant: {% endif %}")
    tok.eos_token = None
    f = {f.code: f for f in doctor(Recipe(data=GOOD, test_size=0), tok)}["end-not-learned"]
    assert (f.severity, f.count) == ("error", 40)


def test_rows_that_are_trained_on_and_held_out():
    tok = load_tokenizer(petit.path())
    f = {f.code: f for f in doctor(Recipe(data={"train": GOOD, "test": GOOD[7:9] + [said("New.")]}, test_split="test"),
        tok)}["overlap"]
    assert (f.count, f.rows) == (2, (1, 2))
    assert not doctor(Recipe(data={"train": GOOD, "test": GOOD[7:9] + [said("New.")]}, test_split="test",
        deduplicate=True), tok)


def test_characters_that_are_lost():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "Yes": 2, "No": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    f = {f.code: f for f in doctor(Recipe(data=[{"text": "Yes No"}, {"text": "Yes ☃"}], test_size=0),
        tok)}["not-round-trip"]
    assert (f.count, f.rows) == (1, (2,)) and "☃" in f.detail


KEYS = {"an AWS key": "AKIA" + "Z"*16, "a GitHub token": "ghp_" + "a"*36, "a Hugging Face token": "hf_" + "a"*34,
    "a key of a model's API": "sk-" + "proj-" + "a"*40, "a Slack token": "xoxb-" + "1"*20,
    "a Google key": "AIza" + "a"*35, "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----", "a JSON web token": "eyJ"
    + "a"*20 + ".eyJ" + "b"*20 + ".c", "a password in an address": "https://anna:" + "geheim@example.org"}


@pytest.mark.parametrize("kind", KEYS)
def test_a_secret_is_told_and_not_shown(kind):
    assert set(KEYS) == set(SECRETS)
    f = found(GOOD + [said(f"It is {KEYS[kind]} indeed.")])["secrets"]
    assert f.rows == (41,) and kind in f.detail and "row 41, turn 2 (assistant)" in f.detail
    assert KEYS[kind] not in str(f) and KEYS[kind][5:15] not in str(f).replace("BEGIN", "")
    assert mask_secret("anna@example.org") == "a…@example.org"


@pytest.mark.parametrize("text", ["Ask for the sky-high-and-very-long-hyphenated-word.",
    "a task-oriented system-of-things", "See http://example.org/a:b", "@anna said it", "3 @ 4"])
def test_what_is_no_secret(text): assert not found(GOOD + [said(text)])


CALL = dict(type="function", function=dict(name="get", arguments=dict(of="it")))
ASK = dict(role="user", content="get of it")
CALLING = TEMPLATE.replace("{% generation %}{{ m['content'] }}",
    "{% generation %}{{ m.content }}{% for c in m.tool_calls[:1] %}{{ c.function }}{% endfor %}")


def asked(**turn): return {"messages": [ASK, dict(role="assistant", **turn)]}


# (row, template, what the doctor says first; empty where nothing is left out)
LEFT_OUT = {"a call whose name stands in the question": (asked(content="", tool_calls=[CALL]), TEMPLATE,
    "error turn 2 (assistant), call 1 (get)"),
    "a call behind words": (asked(content="I get it.", tool_calls=[CALL]), TEMPLATE,
    "warning turn 2 (assistant), call 1 (get)"),
    "a call that is written": (asked(content="", tool_calls=[CALL]), CALLING, ""),
    "a second call of the same tool": (asked(content="", tool_calls=[CALL, CALL]), CALLING,
    "warning turn 2 (assistant), call 2 (get)"), "arguments": (asked(content="", tool_calls=[CALL]),
    CALLING.replace("c.function }}", "c.function.name }}"), "warning turn 2 (assistant), call 1 (get), its arguments"),
    "a thought that stands in the answer": (asked(content="it is 2", reasoning="it is 2"), TEMPLATE,
    "warning turn 2 (assistant), its reasoning"), "a thought under two names, one of them read": (asked(content="2",
    reasoning="it is 2", thinking="it is 2"), TEMPLATE.replace("{{ m['content'] }}</s>",
    "{{ m.thinking }}{{ m['content'] }}</s>"), ""), "a call in a prompt of turns": ({"prompt": [ASK, dict(
    role="assistant", content="", tool_calls=[CALL]), dict(role="tool", content="2")], "completion": [dict(
    role="assistant", content="It is 2.")]}, TEMPLATE, "warning turn 2 (assistant), call 1 (get)")}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_template_leaves_out(name):
    row, template, words = LEFT_OUT[name]
    f = found([row]*3, template).get("template-drops")
    assert f"{f.severity} {f.detail.partition('row 1, ')[2].partition(';')[0]}" == words if words else f is None


def test_turns_are_looked_at_in_a_prompt_too():
    rows = [{"prompt": [*said("")["messages"], ASK], "completion": [dict(role="assistant", content="2")]}]*3
    assert found(rows)["empty-turn"].count == 3 and "template-missing" in found(rows, None)


def test_a_label_is_no_answer_and_an_answer_no_label():
    kinds = found([dict(text=f"letter {i}", label=["kind", "rude"][i%2], target="x") for i in range(9)])
    assert "'kind', 'rude'" in kinds["label-unread"].detail and "SEQ_CLS" in kinds["label-unread"].remedy
    assert kinds["answer-unread"].detail == "column 'target'"
    told = found([dict(text=f"letter {i}", target="x") for i in range(9)], columns=dict(text="text"))
    assert "answer-unread" not in told and "columns-dropped" in told


def test_what_was_looked_at_in_part_says_so(monkeypatch):
    from loranb.data import findings
    monkeypatch.setattr(findings, "SAMPLE", 10)
    f = found([said(f"{i}@example.org") for i in range(100)])["emails"]
    assert SAMPLE == 20_000 and f.count == 10 and "10 of 100 rows were looked at" in f.detail and f.rows == (1, 12, 23,
        34, 45)


def test_errors_stop_a_run_until_they_are_acknowledged(tmp_path):
    recipe = Recipe(data=[said("Yes, and so on and so on, without an end.")]*20, max_length=14, quant="none", r=2,
        max_steps=1, per_device_train_batch_size=2, eval_steps=0, save_steps=0)
    with pytest.raises(DataError, match=r"answer-cut: .*18 rows.*Raise max_length.*acknowledged=\['answer-cut'\]") as e:
        Run(recipe, tmp_path/"run").train()
    assert e.value.row in range(1, 21) and not (tmp_path/"run").exists()
    run = Run(recipe.replace(acknowledged=["answer-cut"]), tmp_path/"run").train()
    told = run.of_type("findings")[0]["findings"]
    assert run.state == "done" and {f["code"] for f in told} >= {"answer-cut",
        "duplicates"} and Run.open(run.path).of_type("findings")[0]["findings"][0]["code"] == "answer-cut"
    with pytest.raises(RecipeError, match="no code 'answercut'.*Did you mean 'answer-cut'"):
        Run(recipe.replace(acknowledged=["answercut"]), tmp_path/"other").train()


def test_errors_come_first_and_findings_show_themselves():
    fs = Findings([Finding("duplicates", "warning", 3, (1, 2, 3), "x"), Finding("two-bos", "error", 1, (1,), "x")])
    assert [f.code for f in fs.blocking()] == ["two-bos"] and not fs.blocking(["two-bos"])
    assert "two-bos" in repr(fs) and "two-bos" in fs._repr_html_() and repr(Findings()) == "Nothing was found."
    order = [f.severity for f in found(GOOD + GOOD[:1] + [{"messages": None}, {**said("a@b.org"), "id": 1}]).values()]
    assert order == sorted(order, key=SEVERITIES.index) and len(order) >= 3


def test_rows_are_left_out_by_their_length():
    from loranb.data.encoding import prepare
    rows = GOOD + [said("Word "*200), {"text": "a"}]
    tok = load_tokenizer(petit.path())
    cases = dict(all={}, long=dict(drop_overlong=True), short=dict(min_length=5),
        both=dict(drop_overlong=True, min_length=5))
    assert {k: len(prepare(Recipe(data=rows, test_size=0, max_length=64, **kw), tok).rows) for k,
        kw in cases.items()} == dict(all=42, long=41, short=41, both=40)
    assert "answer-cut" not in found(rows, max_length=64, drop_overlong=True) and "answer-cut" in found(rows,
        max_length=64)


def test_a_sample_calls_a_label_as_the_classifier_does(monkeypatch):
    from loranb.train import observer
    monkeypatch.setattr(observer, "classify", lambda *a: ["1", "0"])
    said = observer.judged_samples(None, [dict(text="a", label=1.), dict(text="b", label=True)], [], 0)
    assert [(o["target"], o["ok"]) for o in said] == [("1", True), ("True", False)]
