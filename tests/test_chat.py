"What the assistant says, under templates of every shape: a hand-made truth for each"
import re

import pytest
from hypothesis import given, settings, strategies as st

from loranb.models import petit
from loranb.models.hub import load_tokenizer
from loranb.data.chat import Template, row_spans
from loranb.data.sources import DataError

from templates import ALL, CHATS, MANY, ONE


def tokenizer(case):
    tok = load_tokenizer(petit.path())
    tok.add_special_tokens(dict(additional_special_tokens=[*case.specials, *(t for t in (case.bos, case.eos) if t)]))
    tok.bos_token, tok.eos_token, tok.chat_template = case.bos, case.eos, case.template
    return tok


@pytest.fixture(scope="session", params=list(ALL))
def known(request):
    case = ALL[request.param]
    return case, Template(tokenizer(case))


def shown(text, spans):
    for a, b in spans[::-1]: text = f"{text[:a]}«{text[a:b]}»{text[b:]}"
    return text


@pytest.mark.parametrize("name", CHATS)
def test_the_truth(known, name):
    case, template = known
    truth = getattr(case, name)
    if "«" in truth: assert shown(*template.spans(CHATS[name])) == truth
    else:
        with pytest.raises(DataError, match=truth): template.spans(CHATS[name])


def test_tools_and_thoughts(known):
    case, template = known
    for messages, tools, truth in case.more: assert shown(*template.spans(messages, tools)) == truth


def test_the_quick_way_is_the_slow_way(known):
    case, template = known
    for name, texts in dict(plain=("a b", "Yes.\nNo."), spaces=(" a ", " Yes \n"),
            marks=("<user>", "x < y </think> z"), html=("<script>", "{{ 7*7 }}")).items():
        messages = [dict(role=r, content=c) for r, c in zip(("user", "assistant")*2, texts*2)]
        quick, slow = template.spans(messages), template.end_chat(*template.by_comparing(messages))
        if not template.marked or name != "spaces": assert shown(*quick) == shown(*slow), name
        assert texts[1].strip().split("</think>")[-1] in quick[0][slice(*quick[1][1])] and len(quick[1]) == 2


@settings(max_examples=15)
@given(st.text(min_size=1, max_size=30).filter(str.strip), st.text(min_size=1, max_size=30).filter(str.strip))
def test_any_words(question, answer):
    for name in ("chatml (Yi)", "Llama 3", "Mistral v3, system and tools in the last question", "Vicuna",
            "GLM 4, the next header ends a turn"):
        case = ALL[name]
        if name not in TOKENIZERS: TOKENIZERS[name] = Template(tokenizer(case))
        template = TOKENIZERS[name]
        if any(s in question + answer for s in template.specials): return
        text, ((a, b),) = template.spans([dict(role="user", content=question), dict(role="assistant", content=answer)])
        assert answer.strip() in text[a:b] and text[a:b].endswith(template.specials) and text[a:b].strip().startswith(answer.strip())


TOKENIZERS = {}


def test_a_template_that_reads_the_answer_is_refused():
    tok = load_tokenizer(petit.path())
    tok.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.content|length }}\n{% endfor %}"
    with pytest.raises(DataError, match="turn 2 cannot be told apart"): Template(tok).spans(ONE)
    tok.chat_template = "{% for m in messages %}{{ m.role }}: ...\n{% endfor %}"
    with pytest.raises(DataError, match="cannot be told apart"): Template(tok).spans(ONE)
    tok.chat_template = None
    with pytest.raises(DataError, match="no chat template"): Template(tok)


def test_what_is_learned():
    tok = load_tokenizer(petit.path())
    template = Template(tok)
    many = dict(messages=[*ONE, *ONE])
    said = lambda *a: [t[x:y] for t, spans, _ in [row_spans(lambda: template, tok, *a)] for x, y in spans]
    assert said(many) == ["Yo</s>"]*2 and said(many, "last") == ["Yo</s>"]
    assert said(many, "all") == ["<s><user>Hi<assistant>Yo</s><user>Hi<assistant>Yo</s>"]
    pair = dict(prompt="a =", completion=" b")
    assert said(pair) == said(pair, "last") == [" b</s>"] and said(pair, "all") == ["a = b</s>"]
    assert said(dict(prompt=ONE + ONE[:1], completion=ONE[1:])) == ["Yo</s>"]
    assert said(dict(text="a b")) == said(dict(text="a b</s>")) == ["a b</s>"]


def test_messages_as_arrow_gives_them():
    template = Template(tokenizer(ALL["Qwen 2.5, a system prompt of its own"]))
    filled = [dict(m, tool_calls=None, reasoning_content=None) for m in ONE]
    assert template.spans(filled) == template.spans(ONE)


NAMED = "{{ c.function.name }}"
FORMS = {"an object": (NAMED + "{{ c.function.arguments | tojson }}", "", False),
    "text that is joined": ("{{ c.function.name + c.function.arguments }}", "", True),
    "text that is printed": (NAMED + "{{ c.function.arguments }}", "", True),
    "an object that is gone through": (NAMED + "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}",
    "", False), "either": (NAMED + "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    "{{ c.function.arguments | tojson }}{% endif %}", "", False), "no arguments": (NAMED, "", False)}


@pytest.mark.parametrize("bare", ("", None))
@pytest.mark.parametrize("name", FORMS)
def test_a_call_in_the_form_that_a_template_wants(name, bare):
    tok, (written, _, text) = load_tokenizer(petit.path()), FORMS[name]
    calls = "{% for c in m.tool_calls or [] %}" + written + "{% endfor %}"
    tok.chat_template = ("{% for m in messages %}{{ m.role }}: " + (calls + "{{ m.content }}" if bare == ""
        else "{% if m.content is none %}" + calls + "{% else %}{{ m.content }}{% endif %}") + "</s>{% endfor %}")
    template = Template(tok)
    assert template.call_form() == template.call_form(True) == (bare, text)
    turns = [ONE[0], dict(role="assistant", content="", tool_calls=[dict(type="function",
        function=dict(name="add", arguments=dict(a="é")))])]
    said, ((a, b),) = template.spans(turns)
    assert "add" in said[a:b] and said[a:b].endswith("</s>") and "None" not in said and "'a'" not in said
    assert text == ('{"a": "é"}' in said and turns[1] != template.as_wanted(turns)[1] and "joined" in name
        or "printed" in name)


def test_a_known_sequence_of_roles_is_rendered_once(known, monkeypatch):
    case, template = known
    if template.marked or "«" not in case.many: return
    first, count = template.spans(MANY), []
    monkeypatch.setattr(template, "_jinja", lambda *a, jinja=template._jinja, **kw: count.append(1) or jinja(*a, **kw))
    assert template.spans(MANY) == first
    if case.template.find("think") < 0 and "replace" not in case.template: assert len(count) == 1
