"What is learned, under templates of several shapes: the answers and their end token, and nothing else."
import json

import pytest
from hypothesis import given, settings, strategies as st

from loranb.models import petit
from loranb.models.hub import load_tokenizer
from loranb.data.chips import chips_html, chips_of
from loranb.data.batches import collate
from loranb.data.encoding import Encoder, encode_row, encode_all, prepare
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.data.rows import find_rows

from templates import ends_learned

TOK = load_tokenizer(petit.path())
CHATML = ("{% for m in messages %}<user>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt "
    "%}<user>assistant\n{% endif %}")
PLAIN = ("{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% "
    "endfor %}{% if add_generation_prompt %}assistant: {% endif %}")


def with_template(template):
    tok = load_tokenizer(petit.path())
    tok.chat_template = template
    return tok


def chat(*turns): return {"messages": [{"role": r, "content": c} for r, c in turns]}
def learned(tok, row, **kw): return tok.decode([l for l in encode_row(tok, row, **kw).labels if l != -100])


@pytest.mark.parametrize("template", [None, CHATML, PLAIN])
def test_answers_and_their_end(template):
    tok = with_template(template) if template else TOK
    row = chat(("system", "Be brief."), ("user", "The cat?"), ("assistant", "Le chat."), ("user", "The dog?"),
        ("assistant", "Le chien."))
    # a template that ends in a space shares it with the first word's token
    assert learned(tok, row).replace(" Le", "Le") == "Le chat.</s>Le chien.</s>"
    assert ends_learned(tok, encode_row(tok, row))


def test_what_is_shown_is_what_is_trained():
    row = encode_row(TOK, chat(("user", "The cat?"), ("assistant", "Le chat.")))
    chips = chips_of(TOK, row.input_ids, row.labels)
    shown = [t for t, k, _ in chips if "learned" in k]
    assert "".join(shown) == "Le chat.</s>" and [i for *_, i in chips] == row.input_ids


def test_a_template_that_rewrites_the_past_is_no_obstacle():
    tok = with_template("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}</s>")
    assert learned(tok, chat(("user", "a"), ("assistant", " b"))) == " b</s>"


def test_no_template_is_said():
    tok = with_template(None)
    tok.chat_template = None
    with pytest.raises(RecipeError, match="no chat template"): encode_row(tok, chat(("user", "a"), ("assistant", "b")))
    assert learned(tok, {"prompt": "a =", "completion": " b"}) == " b</s>"


def test_text_is_learned_whole_and_ends_once():
    row = encode_row(TOK, {"text": "Le chat dort."})
    # nothing predicts the first token
    assert row.labels == [-100, *row.input_ids[1:]] == encode_row(TOK, {"text": "Le chat dort.</s>"}).labels
    assert TOK.decode(row.input_ids) == "Le chat dort.</s>"


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60).filter(str.strip), st.text(min_size=1, max_size=60).filter(str.strip))
def test_any_text(question, answer):
    for s in TOK.all_special_tokens: question, answer = question.replace(s, ""), answer.replace(s, "")
    if not answer.strip(): return
    row = encode_row(TOK, chat(("user", question), ("assistant", answer)))
    assert TOK.decode([l for l in row.labels if l != -100]).endswith("</s>")
    assert sum(len(TOK.decode([i])) > 0 for i in row.input_ids) and len(row.labels) == len(row.input_ids)
    assert "<script" not in chips_html(chips_of(TOK, row.input_ids, row.labels))


def test_cut_rows():
    row = chat(("user", "The cat?"), ("assistant", "Le chat."))
    n = len(encode_row(TOK, row).input_ids)
    cut = encode_row(TOK, row, n - 1)
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
    rows = [encode_row(TOK, {"text": "a"}), encode_row(TOK, {"text": "a b c d e f"})]
    batch = collate(rows, TOK.pad_token_id)
    pad = batch["attention_mask"] == 0
    assert pad.any() and (batch["labels"][pad] == -100).all() and (batch["input_ids"][pad] == TOK.pad_token_id).all()
    assert TOK.pad_token_id != TOK.eos_token_id


@pytest.mark.parametrize("row", [chat(("user", "The cat?"), ("assistant", "Le chat.")),
    {"prompt": "the cat =", "completion": " le chat"}, {"prompt": "<s>the cat =", "completion": " le chat"}])
def test_a_row_is_asked_as_it_is_trained(row):
    from loranb.data.asking import Asking, split_row
    ids, target = split_row(Asking(TOK), row)
    row = encode_row(TOK, row)
    assert row.input_ids[:len(ids)] == ids and set(row.labels[:len(ids)]) == {-100} and TOK.decode(row.labels[len(ids):-1]).strip() == target


def cached(monkeypatch, tmp_path):
    from datasets import config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path)
    return lambda: sorted(p.name for p in tmp_path.glob("loranb/tokens-*"))


def test_tokens_are_made_once(tmp_path, monkeypatch):
    files, rows = cached(monkeypatch, tmp_path), [{"prompt": f"{i} =", "completion": f" {i}"} for i in range(2500)]
    first = encode_all(Encoder(TOK, 64), find_rows(rows))
    assert len(files()) == 1 and len(first._all.data.column("input_ids").chunks) == 3
    with monkeypatch.context() as m:
        m.setattr(Encoder, "__call__", None)
        again = encode_all(Encoder(TOK, 64), find_rows([dict(r) for r in rows]))
    assert len(again) == 2500 and all(again[i] == first[i] == encode_row(TOK, rows[i], 64) for i in (0, 999, 1000,
        2499, -1))
    other = with_template(CHATML)
    for n, (tok, more) in enumerate([(TOK, dict(max_length=63)), (TOK, dict(max_length=64, train_on="all")),
            (other, dict(max_length=64))], 2):
        encode_all(Encoder(tok, **more), find_rows(rows))
        assert len(files()) == n
    encode_all(Encoder(TOK, 64), find_rows(rows[:-1] + [{"prompt": "?", "completion": "!"}]))
    assert len(files()) == 5


def test_an_interrupted_file_is_not_there(tmp_path, monkeypatch):
    files, count = cached(monkeypatch, tmp_path), []
    rows, encoder = find_rows([{"text": f"the cat {i}"} for i in range(2500)]), Encoder(TOK, 64)
    def stopped(self, *args):
        count.append(1)
        if len(count) == 2: raise KeyboardInterrupt
        return Encoder.again(self, *args)
    monkeypatch.setattr(Encoder, "again", Encoder.__call__, raising=False)
    monkeypatch.setattr(Encoder, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt): encode_all(encoder, rows)
    assert not files() and not list((tmp_path/"loranb").glob("tmp*"))
    assert len(encode_all(encoder, rows)) == 2500 and len(files()) == 1


def test_rows_that_the_template_refuses(tmp_path, monkeypatch):
    from loranb.data.sources import DataError
    cached(monkeypatch, tmp_path)
    tok = with_template("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% "
        "endif %}{{ m.content }}</s>{% endfor %}")
    rows = [chat(("user", "a"), ("assistant", str(i))) for i in range(20)]
    rows[6] = chat(("system", "s"), ("user", "a"), ("assistant", "b"))
    for _ in range(2):
        with pytest.raises(DataError, match="row 7: the chat template refuses this chat: no system here") as e:
            prepare(Recipe(data=rows, test_size=0), tok)
        assert e.value.row == 7
    data, bad = prepare(Recipe(data=rows, test_size=0, acknowledged=["template-refuses"]), tok), []
    assert len(data.train) == len(data.rows) == 19 and data.dropped == 1 and rows[6] not in list(data.rows)
    for _ in range(2):
        encode_all(Encoder(tok, 256), find_rows(rows), bad)
        assert [n for n, _ in bad] == [7]
        bad.clear()
    with pytest.raises(DataError, match="row 7"): prepare(Recipe(data=rows, test_size=0), tok)  # found in the cache now


def test_what_tokens_say_of_themselves():
    some = encode_all(Encoder(TOK, 12), find_rows([chat(("user", "the cat "*n), ("assistant", "le chat "*n))
        for n in range(1, 9)]))
    rows = list(some)
    assert [len(r.input_ids) for r in rows] == some.lengths.tolist() and [r.learned
        for r in rows] == some.learned.tolist() and [r.cut for r in rows] == some.cuts.tolist()
    few = some.select([5, 0]).select([1])
    assert len(few) == 1 and few[0] == rows[0] and few.lengths.tolist() == [len(rows[0].input_ids)] and few.dataset[0]["input_ids"] == rows[0].input_ids
    with pytest.raises(IndexError): few[1]
    assert some[2:4] == rows[2:4] and few[-1] == rows[0]


def test_tokens_that_cover_half_a_character():
    for text in ("naïve 🦜 é", "x\u2028y", "日本語"):
        row = encode_row(TOK, {"prompt": "a" + text, "completion": text})
        assert TOK.decode([l for l in row.labels if l != -100]).endswith(text + "</s>")
