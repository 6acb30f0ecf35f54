"What is learned, under templates of several shapes: the answers and their end token, and nothing else."
import json

import pytest
from hypothesis import given, settings, strategies as st

from loranb import petit
from loranb.base import load_tokenizer
from loranb.data import collate, encode, ends_learned, prepare, tokens_html
from loranb.recipe import Recipe, RecipeError
from loranb.rows import find_rows

TOK = load_tokenizer(petit.path())
CHATML = "{% for m in messages %}<user>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<user>assistant\n{% endif %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def with_template(template):
    tok = load_tokenizer(petit.path())
    tok.chat_template = template
    return tok


def chat(*turns): return {"messages": [{"role": r, "content": c} for r, c in turns]}
def learned(tok, row, **kw): return tok.decode([l for l in encode(tok, row, **kw).labels if l != -100])


@pytest.mark.parametrize("template", [None, CHATML, PLAIN])
def test_answers_and_their_end(template):
    tok = with_template(template) if template else TOK
    row = chat(("system", "Be brief."), ("user", "The cat?"), ("assistant", "Le chat."), ("user", "The dog?"), ("assistant", "Le chien."))
    assert learned(tok, row).replace(" Le", "Le") == "Le chat.</s>Le chien.</s>"  # a template that ends in a space shares it with the first word's token
    assert ends_learned(tok, encode(tok, row))


def test_what_is_shown_is_what_is_trained():
    row = encode(TOK, chat(("user", "The cat?"), ("assistant", "Le chat.")))
    shown = [t for t, k in row.pieces(TOK) if "learned" in k]
    assert "".join(shown) == "Le chat.</s>" and len(row.pieces(TOK)) == len(row.input_ids)


def test_a_template_that_rewrites_the_past_is_no_obstacle():
    tok = with_template("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}</s>")
    assert learned(tok, chat(("user", "a"), ("assistant", " b"))) == " b</s>"


def test_no_template_is_said():
    tok = with_template(None)
    tok.chat_template = None
    with pytest.raises(RecipeError, match="no chat template"): encode(tok, chat(("user", "a"), ("assistant", "b")))
    assert learned(tok, {"prompt": "a =", "completion": " b"}) == " b</s>"


def test_text_is_learned_whole_and_ends_once():
    row = encode(TOK, {"text": "Le chat dort."})
    assert row.labels == [-100, *row.input_ids[1:]] == encode(TOK, {"text": "Le chat dort.</s>"}).labels  # nothing predicts the first token
    assert TOK.decode(row.input_ids) == "Le chat dort.</s>"


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60).filter(str.strip), st.text(min_size=1, max_size=60).filter(str.strip))
def test_any_text(question, answer):
    for s in TOK.all_special_tokens: question, answer = question.replace(s, ""), answer.replace(s, "")
    if not answer.strip(): return
    row = encode(TOK, chat(("user", question), ("assistant", answer)))
    assert TOK.decode([l for l in row.labels if l != -100]).endswith("</s>")
    assert sum(len(TOK.decode([i])) > 0 for i in row.input_ids) and len(row.labels) == len(row.input_ids)
    assert "<script" not in tokens_html(row.pieces(TOK))


def test_cut_rows():
    row = chat(("user", "The cat?"), ("assistant", "Le chat."))
    n = len(encode(TOK, row).input_ids)
    cut = encode(TOK, row, n - 1)
    assert cut.cut == 1 and not ends_learned(TOK, cut)


def test_folders_and_files(tmp_path):
    from datasets import Dataset, DatasetDict
    rows = [{"prompt": str(i), "completion": str(i)} for i in range(30)]
    (tmp_path/"rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path/"rows.json").write_text(json.dumps(rows))
    Dataset.from_list(rows).save_to_disk(tmp_path/"saved")
    DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows[:3])).save_to_disk(tmp_path/"splits")
    (tmp_path/"folder").mkdir()
    (tmp_path/"folder"/"train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("rows.jsonl", "rows.json", "saved", "splits", "folder"): assert find_rows(str(tmp_path/name)) == rows
    assert find_rows(Dataset.from_list(rows)) == rows and len(find_rows(str(tmp_path/"splits"), "test")) == 3
    with pytest.raises(RecipeError, match="it has|has train, test"): find_rows(str(tmp_path/"splits"), "valid")
    (tmp_path/"rows.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(RecipeError, match="line 2"): find_rows(str(tmp_path/"rows.jsonl"))
    (tmp_path/"empty").mkdir()
    with pytest.raises(RecipeError, match="holds no data set"): find_rows(str(tmp_path/"empty"))


def test_held_out_rows_are_not_trained_on():
    rows = [{"prompt": f"{i} =", "completion": f" {i}"} for i in range(100)]
    data = prepare(Recipe(data=rows, test_size=64), TOK)
    assert len(data.test) == 10 and len(data.train) == 90
    assert not {r["prompt"] for r in data.rows} & {r["prompt"] for r in data.test_rows}
    assert data.test_rows == prepare(Recipe(data=rows, test_size=64), TOK).test_rows
    assert data.test_rows != prepare(Recipe(data=rows, test_size=64, seed=1), TOK).test_rows


def test_padding_is_neither_seen_nor_learned():
    rows = [encode(TOK, {"text": "a"}), encode(TOK, {"text": "a b c d e f"})]
    batch = collate(rows, TOK.pad_token_id)
    pad = batch["attention_mask"] == 0
    assert pad.any() and (batch["labels"][pad] == -100).all() and (batch["input_ids"][pad] == TOK.pad_token_id).all()
    assert TOK.pad_token_id != TOK.eos_token_id
