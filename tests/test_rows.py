"Whatever comes in is read, repaired and said so, or refused with the number of the row."
import bz2, gzip, io, json, lzma, math, zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa, pyarrow.parquet as pq
import pytest

from loranb import DataError
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.data.rows import find_rows, held_out, rows_of

OK = {"question": "2 + 2?", "answer": "4"}
CHAT = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Bonjour"}]}


def lines(*rows): return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
def turns(*pairs): return {"messages": [{"role": r, "content": c} for r, c in pairs]}
def said(content): return turns(("user", "Hello"), ("assistant", content))
def asked(content): return turns(("user", content), ("assistant", "Bonjour"))
def zipped(name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z: z.writestr(name, lines(OK))
    return out.getvalue()


def parquet(table):
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


# name: (file name or None for a list, content, number of the row or None for the file, words of the message)
REFUSED = {"truncated JSONL": ("a.jsonl", lines(OK, OK) + '{"question": "3', 3,
    ["a.jsonl", "row 3 (line 3)", "is not JSON"]), "truncated JSON array": ("a.json", json.dumps([OK, OK])[:-9], 2,
    ["row 2", "ends in the middle"]), "array without its end": ("a.json", json.dumps([OK, OK])[:-1], 3,
    ["row 3", "ends in the middle"]), "something behind the array": ("a.json",
    json.dumps([OK]) + "\n" + json.dumps(OK), 2, ["row 2 (line 1)", "behind the end of the array"]),
    "array with a broken row": ("a.json", '[{"text": "a"},\n {"text": b}]', 2, ["row 2 (line 2)", "is not JSON"]),
    "JSONL with single quotes": ("a.jsonl", lines(OK, "{'question': 'a'}"), 2, ["row 2 (line 2)", "is not JSON"]),
    "trailing comma": ("a.jsonl", lines(OK, '{"question": "a", "answer": "b",}'), 2, ["row 2", "is not JSON"]),
    "a line of words": ("a.jsonl", lines(OK, "hello"), 2, ["row 2", "is not JSON"]),
    "broken first line": ("a.jsonl", lines('{"question": ', OK), 1, ["row 1", "is not JSON"]),
    "a row that is a number": ("a.jsonl", lines(OK, "17"), 2, ["row 2", "must be an object"]),
    "a row that is null": ("a.jsonl", lines(OK, "null"), 2, ["row 2", "must be an object"]),
    "a row that is a list of words": ("a.jsonl", lines(OK, '["a", "b"]'), 2, ["row 2", "must be an object"]),
    "an empty object": ("a.jsonl", lines(OK, "{}"), 2, ["row 2", "has no columns"]),
    "duplicate keys": ("a.jsonl", lines(OK, '{"question": "a", "answer": "b", "answer": "c"}'), 2,
    ["row 2", "'answer' twice"]), "duplicate keys in an array": ("a.json",
    '[{"text": "a"}, {"text": "a", "text": "b"}]', 2, ["row 2", "'text' twice"]),
    "nested a thousand deep": ("a.jsonl", lines(OK, "[" * 100000), 2, ["row 2", "nested too deeply"]),
    "invalid UTF-8": ("a.jsonl", lines(OK).encode() + b'{"question": "caf\xe9", "answer": "b"}\n', 2,
    ["row 2 (line 2)", "not UTF-8", "0xe9", "Save the file as UTF-8"]),
    "Latin-1 CSV": ("a.csv", "question,answer\nun café,4\n".encode("latin-1"), 1, ["line 2", "not UTF-8"]),
    "UTF-16 cut in the middle": ("a.jsonl", lines(OK, OK).encode("utf-16")[:-3], 2, ["behind line 1"]),
    "a zip": ("a.jsonl", zipped("a.jsonl"), None, ["zip archive", "Unpack it"]),
    "an .xlsx": ("a.csv", zipped("xl/workbook.xml"), None, ["save the sheet as CSV"]),
    "a PNG": ("a.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, ["not a text file", "PNG"]),
    "a PDF": ("a.txt", b"%PDF-1.7 ...", None, ["PDF"]), "a pickle": ("a.jsonl", b"\x80\x04\x95", None, ["pickle"]),
    "an SQLite file": ("a.db", b"SQLite format 3\x00" + bytes(90), None, ["SQLite"]),
    "an unknown kind": ("a.doc", "Hello\n", None, ["no kind that is known", ".jsonl"]),
    "an empty file": ("a.jsonl", "", None, ["has no rows", "empty"]), "a file of blank lines": ("a.csv", "\n \n\n",
    None, ["has no rows", "empty"]), "a header alone": ("a.csv", "question,answer\n", None, ["has no rows"]),
    "a gzip cut off": ("a.jsonl.gz", gzip.compress(lines(*[{"text": str(i)*99} for i in range(2000)]).encode())[:-900],
    ..., ["cut off or damaged"]), "a gzip of nothing that is known": ("a.gz", gzip.compress(b"\x89PNG\r\n\x1a\n"),
    None, ["PNG"]), "text under a Parquet name": ("a.parquet", lines(OK), None, ["no Parquet file"]),
    "a Parquet file cut off": ("a.parquet", parquet(pa.table({"text": ["a"]*999}))[:-40], None,
    ["cannot be read as Parquet", "Is it whole?"]), "an Arrow file cut off": ("a.arrow", b"ARROW1\0\0" + b"\x01"*40,
    None, ["cannot be read as Arrow"]), "a CSV with a stray quote": ("a.csv", 'question,answer\na,b\n"c" d,e\nf,g\n',
    2, ["row 2 (line 3)", "is not CSV", "quote"]),
    "a CSV with an open quote": ("a.csv", 'question,answer\na,b\n"c,d\ne,f\n', 2, ["row 2 (line 3)", "quote"]),
    "a CSV with too many values": ("a.csv", "question,answer\na,b\nc,d,e\n", 2,
    ["row 2 (line 3)", "3 values", "2 names"]), "a CSV with too few values": ("a.csv", "question,answer\na\n", 1,
    ["row 1 (line 2)", "1 values", "2 names"]),
    "a CSV with a column twice": ("a.csv", "question,answer,answer\na,b,c\n", None, ["'answer' twice"]),
    "a CSV with an empty cell": ("a.csv", "question,answer\na,b\nc,\n", 2,
    ["row 2 (line 3)", "assistant says nothing"]),
    "a CSV without a header": ("a.csv", "what is this,a thing\nand that,another\n", 1, ["'what is this'", "columns="]),
    "unknown columns": (None, [{"q": "a", "a": "b"}], 1, ["'q', 'a'", "columns={'user': 'q', 'assistant': 'a'}"]),
    "a null answer": (None, [OK, {"question": "a", "answer": None}], 2,
    ["row 2", "assistant (column 'answer') is empty (null)"]),
    "a null question": (None, [OK, {"question": None, "answer": "b"}], 2,
    ["row 2", "user (column 'question') is empty (null)"]),
    "NaN as the answer": (None, [OK, {"question": "a", "answer": math.nan}], 2, ["row 2", "NaN"]),
    "NaN in a JSON file": ("a.jsonl", lines(OK, '{"question": "a", "answer": NaN}'), 2, ["row 2", "NaN"]),
    "true as the answer": (None, [OK, {"question": "a", "answer": True}], 2, ["row 2", "must be text", "True"]),
    "an object as the answer": (None, [OK, {"question": "a", "answer": {"text": ["b"]}}], 2,
    ["row 2", "must be text"]), "bytes as the text": (None, [{"text": b"abc"}], 1, ["row 1", "must be text"]),
    "an empty text": (None, [{"text": "a"}, {"text": " \n"}], 2, ["row 2", "the text is empty"]),
    "an empty completion": (None, [{"prompt": "a", "completion": ""}], 1, ["the completion is empty"]),
    "messages that are null": (None, [CHAT, {"messages": None}], 2, ["row 2", "messages is empty (null)"]),
    "messages that are empty": (None, [CHAT, {"messages": []}], 2, ["row 2", "empty list"]),
    "messages that are a text": (None, [CHAT, {"messages": "Hello"}], 2, ["row 2", "messages must be a list"]),
    "messages that are one turn": (None, [CHAT, {"messages": CHAT["messages"][0]}], 2,
    ["row 2", "messages must be a list"]), "messages nested too deep": (None, [CHAT, {"messages": [CHAT["messages"]]}],
    2, ["row 2", "one level too deep"]), "messages that are broken JSON": (None,
    [{"messages": '[{"role": "user", "content": "a"'}], 1, ["is a text that is no JSON"]),
    "a turn that is a text": (None, [{"messages": ["Hello", "Bonjour"]}], 1, ["turn 1 must be"]),
    "a turn without a role": (None, [{"messages": [{"content": "Hello"}]}], 1, ["turn 1 has no role"]),
    "a turn without content": (None, [{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}], 1,
    ["turn 1 (user) has no content"]), "an unknown role": (None, [CHAT, turns(("asistant", "a"))], 2,
    ["row 2", "'asistant'", "Did you mean 'assistant'?"]), "a role that is a number": (None, [turns((1, "a"))], 1,
    ["role 1, which is no text"]), "a content that is null": (None, [said("a"), asked(None)], 2,
    ["row 2", "turn 1 (user)", "null"]), "a content that is an object": (None, [said({"text": "a"})], 1,
    ["turn 2 (assistant)", "must be text"]),
    "an image part": (None, [asked([{"type": "text", "text": "What is it?"}, {"type": "image", "image": "cat.png"}])],
    1, ["turn 1 (user)", "'image'", "text alone"]),
    "an image_url part": (None, [asked([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}])], 1,
    ["'image_url'"]), "an audio part": (None, [asked([{"type": "input_audio", "data": ""}])], 1, ["'input_audio'"]),
    "an assistant that says nothing": (None, [CHAT, said("  ")], 2, ["row 2", "assistant says nothing"]),
    "no assistant": (None, [turns(("user", "a"), ("user", "b"))], 1, ["assistant says nothing"]),
    "a tool call without a name": (None, [{"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {}}}]}]}], 1,
    ["tool call without a name"]), "tool arguments that are no object": (None,
    [{"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}]}], 1,
    ["'f'", "no object"]), "tools that are no list": (None, [{**CHAT, "tools": "a calculator"}], 1,
    ["tools must be a list"]), "tools that are a number": (None, [{**CHAT, "tools": 3}], 1, ["tools must be a list"]),
    "a list of numbers": (None, [1, 2], 1, ["row 1", "must be an object"]),
    "an empty list": (None, [], None, ["has no rows"]),
    "an empty DataFrame": (None, pd.DataFrame({"question": [], "answer": []}), None, ["has no rows"]),
    "a DataFrame with missing values": (None, pd.DataFrame({"question": ["a", "b"], "answer": ["c", None]}), 2,
    ["row 2", "is empty"]), "a Parquet file with a null": ("a.parquet",
    parquet(pa.table({"question": ["a", "b"], "answer": ["c", None]})), 2, ["row 2", "null"]),
    "half a million characters and then nothing": ("a.jsonl", '{"text": "' + "x"*500_000, 1, ["row 1", "is not JSON"]),}


def made(tmp_path, name, content):
    if name is None: return content
    (tmp_path/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(tmp_path/name)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    name, content, row, words = REFUSED[case]
    with pytest.raises(DataError) as e: find_rows(made(tmp_path, name, content))
    text = str(e.value)
    assert isinstance(e.value, RecipeError) and (row is ... or e.value.row == row) and all(w in text
        for w in words), (e.value.row, text)
    assert "\n" not in text and len(text) < 500 and text.startswith("data: ") and not text.endswith("..")


def parts(*texts): return [{"type": "text", "text": t} for t in texts]
def calls(args):
    return {"messages": [{"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function",
        "function": {"name": "add", "arguments": args}}]}]}


CALLED = {"messages": [{"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function",
    "function": {"name": "add", "arguments": {"a": 2}}}]}]}
QA = turns(("user", "2 + 2?"), ("assistant", "4"))

# name: (file name or None, content, the rows, what is said to be repaired)
REPAIRED = {"a byte-order mark": ("a.jsonl", "\ufeff" + lines(OK), [QA], {"byte-order mark": 1}),
    "a byte-order mark in CSV": ("a.csv", "\ufeffquestion,answer\n2 + 2?,4\n", [QA], {"byte-order mark": 1}),
    "UTF-16": ("a.jsonl", lines(OK).encode("utf-16"), [QA], {"encoding": 1}),
    "UTF-16 without a mark": ("a.csv", "question,answer\n2 + 2?,4\n".encode("utf-16-le"), [QA], {"encoding": 1}),
    "UTF-32": ("a.json", json.dumps([OK]).encode("utf-32"), [QA], {"encoding": 1}),
    "blank lines": ("a.jsonl", "\n" + lines(OK) + "\n  \n" + lines(OK), [QA, QA], {"blank line": 3}),
    "Windows line ends": ("a.jsonl", lines(OK, OK).replace("\n", "\r\n"), [QA, QA], {}),
    "a line separator inside a text": ("a.jsonl", json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False),
    [{"text": "a\u2028b\x85c"}], {}), "no line feed at the end": ("a.jsonl", lines(OK)[:-1], [QA], {}),
    "gzip": ("a.jsonl.gz", gzip.compress(lines(OK).encode()), [QA], {"compressed": 1}),
    "gzip without its name": ("a.jsonl", gzip.compress(lines(OK).encode()), [QA], {"compressed": 1}),
    "bz2": ("a.csv.bz2", bz2.compress(b"question,answer\n2 + 2?,4\n"), [QA], {"compressed": 1}),
    "xz": ("a.json.xz", lzma.compress(json.dumps([OK]).encode()), [QA], {"compressed": 1}),
    "semicolons": ("a.csv", "question;answer\n2 + 2?;4\n", [QA], {"separator": 1}),
    "tabs under .csv": ("a.csv", "question\tanswer\n2 + 2?\t4\n", [QA], {"separator": 1}),
    "TSV": ("a.tsv", "question\tanswer\n2 + 2?\t4\n", [QA], {}),
    "a line feed in a cell": ("a.csv", 'question,answer\n"2\n+ 2?",4\n',
    [turns(("user", "2\n+ 2?"), ("assistant", "4"))], {}), "spaces around the names of a header": ("a.csv",
    " Question , ANSWER\n2 + 2?,4\n", [QA], {}), "JSON under the name of text": ("a.data", lines(OK), [QA], {}),
    "an array without line feeds": ("a.json", json.dumps([OK, OK]), [QA, QA], {}),
    "an array under .jsonl": ("a.jsonl", json.dumps([OK, OK], indent=1), [QA, QA], {}),
    "one row over many lines": ("a.json", json.dumps(OK, indent=2), [QA], {}),
    "rows over many lines": ("a.json", json.dumps(OK, indent=2)*2, [QA, QA], {}),
    "rows under data": ("a.json", json.dumps({"version": 1, "data": [OK, OK]}), [QA, QA], {"wrapped": 1}),
    "rows under train": ("a.json", json.dumps({"train": [OK], "test": [OK, OK]}), [QA], {"wrapped": 1}),
    "columns as lists": ("a.json", json.dumps({"question": ["2 + 2?"]*2, "answer": ["4"]*2}), [QA, QA],
    {"wrapped": 1}), "roles in capitals": (None, [turns(("USER", "2 + 2?"), ("Assistant", "4"))], [QA], {"role": 2}),
    "roles by other names": (None, [turns(("human", "2 + 2?"), ("bot", "4"))], [QA], {"role": 2}),
    "a developer turn": (None, [turns(("developer", "Be brief."), ("user", "a"), ("assistant", "b"))],
    [turns(("system", "Be brief."), ("user", "a"), ("assistant", "b"))], {"role": 1}),
    "content in parts": (None, [turns(("user", parts("2 + ", "2?")), ("assistant", parts("4")))], [QA], {"parts": 2}),
    "parts that are texts": (None, [turns(("user", ["2 + ", "2?"]), ("assistant", "4"))], [QA], {"parts": 1}),
    "a number as the answer": (None, [{"question": "2 + 2?", "answer": 4}], [QA], {"number": 1}),
    "numbers from numpy": (None, [{"question": "2 + 2?", "answer": np.int64(4)}], [QA], {"number": 1}),
    "a number as content": (None, [turns(("user", "2 + 2?"), ("assistant", 4))], [QA], {"number": 1}),
    "mixed types in a column": ("a.jsonl", lines(OK, {"question": "2 + 2?", "answer": 4}), [QA, QA], {"number": 1}),
    "messages as JSON text": (None, [{"messages": json.dumps(QA["messages"])}], [QA], {"json": 1}),
    "messages as Python text": ("a.csv", 'messages\n"' + str(QA["messages"]) + '"\n', [QA], {"json": 1}),
    "messages column by column": (None, [{"messages": {"role": ["user", "assistant"], "content": ["2 + 2?", "4"]}}],
    [QA], {"columns of turns": 1}), "messages from numpy": (None, [{"messages": np.array(QA["messages"])}], [QA], {}),
    "half a character": ("a.jsonl", '{"text": "a\\ud83d"}', [{"text": "a\ufffd"}], {"letters": 1}),
    "texts": (None, ["a", "b"], [{"text": "a"}, {"text": "b"}], {"lines": 2}),
    "lists of turns": (None, [QA["messages"]], [QA], {"lines": 1}), "arguments as text": (None, [calls('{"a": 2}')],
    [CALLED], {"arguments": 1}), "arguments with nulls from a table": ("a.parquet",
    parquet(pa.Table.from_pylist([calls({"a": 2}), calls({"b": 3})])),
    [CALLED, {"messages": [CALLED["messages"][0],
    {**CALLED["messages"][1], "tool_calls": [{"type": "function",
    "function": {"name": "add", "arguments": {"b": 3}}}]}]}], {}),
    "an empty input": (None, [{"instruction": "2 + 2?", "input": "", "output": "4"},
    {"instruction": "2 + 2?", "input": None, "output": "4"}], [QA, QA], {}),}


@pytest.mark.parametrize("case", REPAIRED)
def test_repaired_and_said_so(case, tmp_path):
    name, content, rows, repairs = REPAIRED[case]
    found = find_rows(made(tmp_path, name, content))
    assert list(found) == rows and {k: n for k, (n, _) in found.about.repairs.items()} == repairs
    assert all(f"{n:,} ×" in str(found.about) for n in repairs.values())
    # what comes out goes in again as it is
    assert find_rows([*found]) == found and not find_rows([*found]).about.repairs


def test_there_are_at_least_sixty(): assert len(REFUSED) + len([c for c in REPAIRED.values() if c[3]]) >= 60


def test_ten_megabytes_in_one_row(tmp_path):
    big = {"text": "word "*2_000_000}
    for name, text in (("a.jsonl", lines({"text": "a"}, big)), ("a.json", json.dumps([{"text": "a"}, big])),
            ("a.csv", "text\na\n" + big["text"] + "\n")):
        rows = find_rows(made(tmp_path, name, text))
        assert len(rows) == 2 and rows[1] == big


# name: (row, the words of the format, the shape's first column)
FORMATS = {"messages": (QA, "messages (messages ← messages)", QA),
    "chat in another column": ({"conversation": QA["messages"]}, "messages (messages ← conversation)", QA),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "ShareGPT (messages ← conversations)", QA),
    "ShareGPT with a system column": ({"system": "Be brief.", "conversations": [{"from": "human", "value": "2 + 2?"},
    {"from": "gpt", "value": "4"}]}, "ShareGPT (system ← system, messages ← conversations)",
    {"messages": [{"role": "system", "content": "Be brief."}, *QA["messages"]]}),
    "Alpaca": ({"instruction": "Add", "input": "2 + 2", "output": "4", "text": "..."},
    "Alpaca (user ← instruction + input, assistant ← output)", turns(("user", "Add\n\n2 + 2"), ("assistant", "4"))),
    "Alpaca without input": ({"instruction": "2 + 2?", "output": "4"},
    "Alpaca (user ← instruction, assistant ← output)", QA),
    "Dolly": ({"instruction": "Add", "context": "2 + 2", "response": "4", "category": "sums"},
    "instruction pairs (user ← instruction + context, assistant ← response)",
    turns(("user", "Add\n\n2 + 2"), ("assistant", "4"))),
    "prompt/completion": ({"prompt": "2 + 2 =", "completion": " 4"},
    "prompt/completion (prompt ← prompt, completion ← completion)", {"prompt": "2 + 2 =", "completion": " 4"}),
    "a prompt that begins like a list": ({"prompt": "[INST] 2 + 2 [/INST]", "completion": "4"},
    "prompt/completion (prompt ← prompt, completion ← completion)",
    {"prompt": "[INST] 2 + 2 [/INST]", "completion": "4"}),
    "prompt/completion of turns": ({"prompt": QA["messages"][:1], "completion": QA["messages"][1:]},
    "prompt/completion (prompt ← prompt, completion ← completion)", QA),
    "prompt/completion after other turns": ({"prompt": QA["messages"] + QA["messages"][:1],
    "completion": QA["messages"][1:]}, "prompt/completion (prompt ← prompt, completion ← completion)",
    {"prompt": QA["messages"] + QA["messages"][:1], "completion": QA["messages"][1:]}),
    "question/answer": ({"Question": "2 + 2?", "Answer": "4"}, "question/answer (user ← Question, assistant ← Answer)",
    QA), "query/response": ({"query": "2 + 2?", "response": "4", "model": "x"},
    "question/answer (user ← query, assistant ← response)", QA), "input/output": ({"input": "2 + 2?", "output": "4"},
    "question/answer (user ← input, assistant ← output)", QA),
    "problem/solution": ({"problem": "2 + 2?", "solution": "4", "answer": "4"},
    "question/answer (user ← problem, assistant ← answer)", QA),
    "text": ({"text": "2 + 2 is 4", "meta": {}}, "text (text ← text)", {"text": "2 + 2 is 4"}),
    "preference with a prompt": ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "preference, the chosen side (user ← prompt, messages ← chosen)", QA),
    "preference as whole chats": ({"prompt": "2 + 2?", "chosen": QA["messages"], "rejected": QA["messages"]},
    "preference, the chosen side (user ← prompt, messages ← chosen)", QA),
    "preference as answers": ({"prompt": QA["messages"][:1], "chosen": QA["messages"][1:], "rejected": []},
    "preference, the chosen side (user ← prompt, messages ← chosen)", QA),
    "HH-RLHF": ({"chosen": "\n\nHuman: 2 + 2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: 5"},
    "preference, the chosen side (messages ← chosen)", QA),
    "tools": ({**CALLED, "tools": json.dumps([{"name": "add"}])}, "messages (tools ← tools, messages ← messages)",
    {**CALLED, "tools": [{"type": "function", "function": {"name": "add"}}]}),
    "ShareGPT's tool calls": ({"conversations": [{"from": "human", "value": "2 + 2?"},
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
    {"from": "observation", "value": "4"}, {"from": "gpt", "value": "It is 4."}]},
    "ShareGPT (messages ← conversations)", {"messages": [*CALLED["messages"], {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "It is 4."}]}),}


@pytest.mark.parametrize("case", FORMATS)
def test_formats_are_recognized_and_shown(case):
    row, words, expected = FORMATS[case]
    rows = find_rows([row])
    assert list(rows.about.formats) == [words] and rows[0] == expected and words in repr(rows)
    assert find_rows([*rows]) == rows


def test_a_mapping_where_the_guess_is_wrong():
    row = {"q": "2 + 2?", "a": 4, "about": "Add.", "question": "no", "answer": "no"}
    rows = find_rows([row], columns={"system": "about", "user": "q", "assistant": "a"})
    assert rows[0]["messages"] == [{"role": "system", "content": "Add."},
        *QA["messages"]] and rows.about.dropped == {"question": 1, "answer": 1}
    assert find_rows([row], columns={"text": ["about", "q"]})[0] == {"text": "Add.\n\n2 + 2?"}
    with pytest.raises(DataError, match="no column 'qq'.*Did you mean 'q'"):
        find_rows([row], columns={"user": "qq", "assistant": "a"})
    with pytest.raises(RecipeError, match="makes no row"): find_rows([row], columns={"user": "q"})
    for wrong in ({"usr": "q"}, {"user": 3}, ["q"]):
        with pytest.raises(RecipeError, match="columns must be"): Recipe(columns=wrong)


def test_what_is_in_memory_is_one(tmp_path):
    from datasets import Dataset, DatasetDict, IterableDataset
    raw = [{"question": f"{i}?", "answer": str(i)} for i in range(25)]
    frame, data = pd.DataFrame(raw), Dataset.from_list(raw)
    data.save_to_disk(tmp_path/"saved")
    data.to_parquet(tmp_path/"a.parquet")
    with pa.OSFile(str(tmp_path/"a.arrow"), "wb") as f, pa.ipc.new_file(f, data.data.table.schema) as out:
        out.write_table(data.data.table)
    expected = find_rows(raw)
    for other in (tuple(raw), frame, data, data.with_format("torch"), data.to_iterable_dataset(),
            IterableDataset.from_generator(lambda: iter(raw)), pa.Table.from_pylist(raw),
            DatasetDict(train=data, test=data.select(range(3))), {"train": raw}, str(tmp_path/"saved"),
            str(tmp_path/"a.parquet"), str(tmp_path/"a.arrow"),
            *[str(p) for p in (tmp_path/"saved").glob("data*.arrow")], tmp_path/"a.parquet"):
        assert find_rows(other) == expected and find_rows(other).fingerprint == expected.fingerprint, type(other)
        assert find_rows(other, "train[5:7]").numbers.tolist() == [6, 7]
    # an iterator can be gone through once only, so a recipe keeps what it gives
    assert len(Recipe(data=iter(raw)).data) == 25
    with pytest.raises(RecipeError, match="the data set has train, test"):
        find_rows(DatasetDict(train=data, test=data), "dev")


def test_a_stream_is_read_once_and_no_further_than_asked():
    from datasets import IterableDataset
    drawn = []
    def endless():
        while True: drawn.append(1); yield {"text": f"row {len(drawn)}"}
    stream = IterableDataset.from_generator(endless)
    assert [find_rows(stream, "train[:1500]")[-1], find_rows(stream, "train[:1500]")[0]] == [{"text": "row 1500"},
        {"text": "row 1"}] and len(drawn) < 3500


def test_folders_and_their_splits(tmp_path):
    for name, n in (("train-00000-of-00002.jsonl", 3), ("train-00001-of-00002.jsonl", 2), ("test.csv", 1),
            ("data/validation.jsonl.gz", 4), ("README.md", 0), ("dataset_infos.json", 0)):
        path = tmp_path/name
        path.parent.mkdir(exist_ok=True)
        raw = [{"question": f"{name} {i}", "answer": "a"} for i in range(n)]
        text = pd.DataFrame(raw).to_csv(index=False) if ".csv" in name else lines(*raw)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert [len(find_rows(str(tmp_path), s)) for s in ("train", "test", "validation")] == [5, 1, 4]
    with pytest.raises(RecipeError, match="no split 'dev'.*test, train, validation"): find_rows(str(tmp_path), "dev")
    (tmp_path/"train-00001-of-00002.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question"')
    with pytest.raises(DataError, match=r"row 5 \(line 2 of 'train-00001-of-00002.jsonl'\)") as e:
        find_rows(str(tmp_path))
    assert e.value.row == 5
    assert len(find_rows(str(tmp_path), skip_bad=True)) == 4


def test_a_list_that_lies_elsewhere():
    raw = [{"text": str(i)} for i in range(2500)]
    rows = find_rows(raw)
    assert len(rows) == 2500 and rows[-1] == raw[-1] and rows[10:13] == raw[10:13] and list(rows) == raw == rows and rows != raw[1:] and raw[7] in rows
    some = rows.select(range(0, 2500, 500))
    assert [r["text"] for r in some] == ["0", "500", "1000", "1500", "2000"] and some.numbers.tolist() == [1, 501,
        1001, 1501, 2001] and some.select([1])[0] == raw[500]
    with pytest.raises(IndexError): rows[2500]
    raw[0]["text"] = "changed"
    assert rows[0] == {"text": "0"} and find_rows(raw)[0] == {"text": "changed"}


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    (tmp_path/"a.jsonl").write_text(lines({"text": "a"}))
    assert find_rows(str(tmp_path/"a.jsonl")) is find_rows(str(tmp_path/"a.jsonl"))
    (tmp_path/"a.jsonl").write_text(lines({"text": "ab"}))
    assert find_rows(str(tmp_path/"a.jsonl"))[0] == {"text": "ab"}


def test_many_rows_lie_in_a_file(tmp_path, monkeypatch):
    from datasets import config
    from loranb.data import rows as module
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path/"cache")
    monkeypatch.setattr(module, "SPILL", 10_000)
    monkeypatch.setattr(module, "PIECE", 3_000)
    raw = [{"question": f"{i}?", "answer": "é"*40} for i in range(400)]
    (tmp_path/"a.jsonl").write_text(lines(*raw, "broken"))
    first = find_rows(str(tmp_path/"a.jsonl"), skip_bad=True)
    module._recent.clear()
    again = find_rows(str(tmp_path/"a.jsonl"), skip_bad=True)
    assert first == again == find_rows(raw) and again.about == first.about and again.about.bad_rows == 1 and pa.total_allocated_bytes() < 5_000_000
    assert sorted(p.suffix for p in (tmp_path/"cache"/"loranb").iterdir()) == [".arrow", ".json"]
    rows = find_rows(iter(raw))
    folder = rows.keep.name
    assert rows[399]["messages"][0]["content"] == "399?" and (module.Path(folder)/"rows.arrow").exists()
    del rows
    assert not module.Path(folder).exists()


def test_splits_shares_and_equal_rows():
    raw = [{"text": str(i%80)} for i in range(200)]
    sizes = lambda **kw: tuple(len(p) for p in held_out(rows_of(Recipe(data=raw, **kw)), Recipe(data=raw, **kw)))
    assert sizes() == (180, 20) and sizes(test_size=5) == (195, 5) and sizes(test_size=.25) == (150,
        50) and sizes(test_size=0) == (200, 0)
    assert sizes(deduplicate=True) == (72, 8)
    splits = {"train": raw, "dev": [{"text": "7"}, {"text": "new"}]}
    for dedupe, n in ((False, 200), (True, 79)):
        recipe = Recipe(data=splits, test_split="dev", deduplicate=dedupe)
        train, test = held_out(rows_of(recipe), recipe)
        assert len(train) == n and [r["text"] for r in test] == ["7", "new"]
    with pytest.raises(RecipeError, match="no split 'test'"):
        held_out(rows_of(recipe), recipe.replace(test_split="test"))


def test_bad_rows_are_left_out_by_who_says_so():
    raw = [OK, {"question": "a", "answer": None}, OK, {"question": "a"}, OK]
    with pytest.raises(DataError, match=r"row 2: .*1 more cannot be read, such as row 4.*acknowledged=\['bad-rows'\]"):
        rows_of(Recipe(data=raw))
    rows = rows_of(Recipe(data=raw, acknowledged=["bad-rows"]))
    assert rows.numbers.tolist() == [1, 3, 5] and "2 rows, such as row 2" in str(rows.about)
    with pytest.raises(DataError, match="None of the first 1,000 rows"):
        find_rows([{"question": "a"}]*5000, skip_bad=True)


@pytest.mark.parametrize("kind", ["list", "frame", "dataset", "splits"])
def test_rows_from_memory_are_kept_with_the_run(kind, tmp_path):
    from datasets import Dataset, DatasetDict
    from loranb.runs.folder import write_head
    from loranb.runs.record import Record
    raw = [{"q": f"{i}?", "a": i, "id": i} for i in range(60)]
    data = dict(list=raw, frame=pd.DataFrame(raw), dataset=Dataset.from_list(raw),
        splits=DatasetDict(train=Dataset.from_list(raw), dev=Dataset.from_list(raw[:3])))[kind]
    recipe = Recipe(data=data, columns={"user": "q", "assistant": "a"}, test_split="dev" if kind == "splits" else None)
    write_head(tmp_path/"run", recipe, modules=[])
    again = Record.open(tmp_path/"run").recipe
    assert [list(p) for p in held_out(rows_of(again), again)] == [list(p) for p in held_out(rows_of(recipe), recipe)]
    assert "data.jsonl" in recipe.to_yaml() and "60 rows" in recipe.to_python() or kind == "splits"
    compile(recipe.to_python(), "script", "exec")
    assert len(repr(recipe)) < 300 and len(recipe._repr_html_()) < 1000
    if kind != "splits": assert (tmp_path/"run"/"data.jsonl").read_text().count("\n") == 60


def test_html_in_rows_stays_text():
    from loranb.data.findings import Finding, Findings
    assert "<script" not in Findings([Finding("emails", "warning", 1, (1,), "",
        "<script>alert(1)</script>")])._repr_html_()


# ---- splits, lists of files, columns that would not be read

@pytest.fixture
def forty(tmp_path):
    (tmp_path/"forty.jsonl").write_text("".join(json.dumps(dict(prompt=f"p{i}", completion=f"c{i}")) + "\n"
        for i in range(40)))
    return str(tmp_path/"forty.jsonl")


@pytest.mark.parametrize("split,first,n", [("train[:10%]", 0, 4), ("train[10%:20%]", 4, 4), ("train[-5:]", 35, 5),
    ("train[:-5]", 0, 35), ("train[-10%:]", 36, 4), ("train[3:9]", 3, 6)])
def test_a_part_of_a_split(forty, split, first, n):
    rows = find_rows(forty, split)
    assert len(rows) == n and rows[0]["prompt"] == f"p{first}" and rows.numbers[0] == first + 1


@pytest.mark.parametrize("split", ["train[::2]", "train[5]", "train[:x]", "train["])
def test_no_part_of_a_split(forty, split):
    with pytest.raises(RecipeError, match="is no part of a split. Parts are written like train"):
        find_rows(forty, split)


def test_what_has_no_splits(forty):
    for data in (forty, [forty], [dict(prompt="a", completion="b")], pd.DataFrame([dict(prompt="a", completion="b")])):
        for split in ("test", "trian"):
            with pytest.raises(RecipeError, match=f"has no splits, so there is no '{split}'"): find_rows(data, split)
        with pytest.raises(RecipeError, match="has no splits"):
            held_out(find_rows(data), Recipe(data=data, test_split="validation"))
    with pytest.raises(RecipeError, match="test_split: 'train' is trained on"):
        held_out(find_rows(forty), Recipe(data=forty, test_split="train"))


def test_a_list_of_files(forty, tmp_path):
    (tmp_path/"more.csv").write_text("prompt,completion\na,b\n")
    rows = find_rows([forty, str(tmp_path/"more.csv")])
    assert len(rows) == 41 and rows[40] == dict(prompt="a", completion="b") and len(find_rows([Path(forty)])) == 40
    with pytest.raises(RecipeError, match=r"there is no file '.*moer.csv'\. Did you mean 'more.csv'"):
        find_rows([forty, str(tmp_path/"moer.csv")])
    assert find_rows(["a text", "notes.txt"])[1] == dict(text="notes.txt")


def test_columns_that_would_not_be_read():
    row = dict(p="do", c="this", s="be brief")
    with pytest.raises(RecipeError, match="beside prompt and completion, system would not be read. Name them user "
            "and assistant"):
        find_rows([row], columns=dict(prompt="p", completion="c", system="s"))
    with pytest.raises(RecipeError, match="beside text, user and assistant would not be read"):
        find_rows([row], columns=dict(text="s", user="p", assistant="c"))
    with pytest.raises(RecipeError, match="messages are in one column"):
        find_rows([row], columns=dict(messages=["p", "c"]))
    assert find_rows([row], columns=dict(prompt=["s", "p"], completion="c"))[0] == dict(prompt="be brief\n\ndo",
        completion="this")
    assert find_rows([dict(instruction="do", input="this", chosen="good",
        rejected="bad")])[0]["messages"][0]["content"] == "do\n\nthis"
    assert find_rows(pd.Series(["a", "b"]))[1] == dict(text="b") and find_rows(dict(prompt=["a", "b"],
        completion=["c", "d"]))[1] == dict(prompt="b", completion="d")


CALLS = [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "",
    "tool_calls": [{"type": "function", "function": {"name": n, "arguments": a}}]}]}
    for n, a in (("one", {"city": "Paris", "days": 3}), ("two", {"user": "Anna", "deep": {"to": ["Rome"], "at": 0.5}}))]


class Polars:
    "What polars has: no wheel of it is needed to see what its rows become"
    def __init__(self, table): self.table = table
    def iter_rows(self, named): return iter(self.table.to_pylist())
    def __iter__(self): return iter(self.table.columns)


def holders(table, path):
    pq.write_table(table, path)
    frame = lambda **kw: pd.read_parquet(path, **kw)
    return dict(table=table, batch=table.combine_chunks().to_batches()[0], chunks=pa.concat_tables([table, table])[2:],
        frame=frame(), arrow_frame=frame(dtype_backend="pyarrow"), records=frame().to_dict("records"),
        polars=Polars(table), file=str(path))


def test_the_same_rows_whatever_holds_them(tmp_path):
    from loranb.core.recipe import Recipe
    for name, data in holders(pa.Table.from_pylist(CALLS), tmp_path/"a.parquet").items():
        assert find_rows(data)[:2] == CALLS, name
        assert rows_of(Recipe(data=data))[:2] == CALLS, name
    assert find_rows(pd.read_parquet(tmp_path/"a.parquet")["messages"])[:] == CALLS
    assert find_rows(pa.Table.from_pylist(CALLS).to_reader())[:] == CALLS
    assert find_rows(pa.dataset.dataset(tmp_path/"a.parquet"))[:] == CALLS


def test_a_null_that_somebody_wrote_is_kept():
    row = json.loads(json.dumps(CALLS[0]))
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = {"city": None}
    assert find_rows([row])[0] == find_rows(pd.DataFrame([row]))[0] == row


def test_rows_of_several_formats_in_a_table(tmp_path):
    rows = [dict(question="a", answer="b"), dict(text="c"), {"messages": [dict(role="user", content="d"),
        dict(role="assistant", content="e")]}, dict(question="f", answer="g", context="h")]
    plain = find_rows(rows)
    for name, data in holders(pa.Table.from_pylist([{**dict.fromkeys(("question", "answer", "context", "text",
            "messages")), **r} for r in rows]), tmp_path/"a.parquet").items():
        if name in ("records", "chunks"): continue
        assert find_rows(data) == plain, name


def test_whole_numbers_stay_whole_where_one_is_missing():
    frame = pd.DataFrame({"question": ["a", "b", "c"], "answer": [4, None, 6]})
    rows = find_rows(frame, skip_bad=True)
    assert [r["messages"][1]["content"] for r in rows] == ["4", "6"]
    assert find_rows(frame.fillna(.5))[0]["messages"][1]["content"] == "4.0"  # no whole numbers
    frame.columns = ["question", "question"]
    with pytest.raises(DataError, match="the column 'question' twice"): find_rows(frame)


def letters(order, numbers):
    from datasets import ClassLabel, Dataset, Features, Value
    return Dataset.from_dict(dict(text=[f"{i}" for i in numbers], label=numbers),
        features=Features(dict(text=Value("string"), label=ClassLabel(names=order))))


def test_a_data_set_keeps_its_order_of_labels_and_minus_one_is_none(tmp_path):
    from loranb.data.labels import label_names
    made = letters(["b", "c", "a"], [0, 1, 2, -1])
    pq.write_table(made.data.table, tmp_path/"a.parquet")
    with pa.OSFile(str(tmp_path/"a.arrow"), "wb") as f, pa.ipc.new_stream(f, made.data.table.schema) as out:
        out.write_table(made.data.table)
    made.save_to_disk(tmp_path/"saved")
    for data in (made, made.to_iterable_dataset(), made.data.table, *(str(tmp_path/n) for n in ("a.parquet", "a.arrow",
            "saved"))):
        rows = find_rows(data)
        assert [r.get("label") for r in rows] == ["b", "c", "a", None]
        assert label_names(rows) == label_names(rows.select([2, 1, 0])) == ["b", "c", "a"]
        assert label_names(rows.select([2, 0])) == ["b", "a"]
    renamed = made.rename_column("label", "topic")
    assert label_names(find_rows(renamed, columns=dict(text="text", label="topic"))) == ["b", "c", "a"]
    pq.write_table(letters(["c", "d"], [0, 1]).data.table, tmp_path/"b.parquet")
    both = find_rows([str(tmp_path/"a.parquet"), str(tmp_path/"b.parquet")])
    assert both[5]["label"] == "d" and label_names(both) == ["b", "c", "a", "d"]


def say(**more): return {"messages": [dict(role="user", content="a"), dict(role="assistant", content="b", **more)]}


ALIKE = {"a weight of 1": say(weight=1), "a weight that is none": say(weight=None), "a turn that is learned":
    say(train=True), "a score": say(score=0), "a question that is not learned": {"messages": [dict(role="user",
    content="a", train=False), dict(role="assistant", content="b", train=True)]}, "a prompt that is only read":
    {"prompt": [dict(role="user", content="a"), dict(role="assistant", content="b", weight=0), dict(role="user",
    content="c")], "completion": [dict(role="assistant", content="d", weight=1)]}, "an answer that is wanted":
    dict(prompt="a", completion="b", label=True), "a label that is a number": dict(prompt="a", completion="b", label=0),
    "a row of weight 1": dict(text="a", weight=1.0), "a weight in words": dict(text="a", weight="3 kg")}
LESS = {"weight": (say(weight=0), say(weight=.5), say(weight="0"), dict(text="a", weight=2), dict(question="a",
    answer="b", weight="0.5")), "train": (say(train=False), say(train="false"), dict(text="a", train=False)),
    "loss": (say(loss=False),), "training": (say(training=False),), "label": (dict(prompt="a", completion="b",
    label=False), dict(prompt="a", completion="b", label="False"), {**say(), "label": False}),
    "kto_tag": ({**say(), "kto_tag": False},), "sample_weight": (dict(text="a", sample_weight=.1),)}


@pytest.mark.parametrize("name", ALIKE)
def test_rows_that_are_learned_alike(name): assert len(find_rows([ALIKE[name]])) == 1


@pytest.mark.parametrize("name", LESS)
def test_rows_that_say_they_are_not_learned_alike(name):
    for row in LESS[name]:
        for data in ([say(), row], pd.DataFrame([row])):
            with pytest.raises(DataError, match=rf"row {len(data)}.* has '{name}': ") as e: find_rows(data)
            assert str(e.value).count("\n") == 0 and e.value.row == len(data)
        assert len(find_rows([say(), row], skip_bad=True)) == 1
    assert find_rows([dict(text="a", label=False)])[0]["label"] is False  # a class


def test_the_chosen_answer_in_all_its_forms():
    turn = lambda o, said: {"from": o, "value": said}
    asked, best = [turn("human", "a"), turn("gpt", "b"), turn("human", "c")], turn("gpt", "d")
    for chosen in (best, [best], "d"):
        assert find_rows([dict(conversations=asked, chosen=chosen, rejected="e")])[0] == {"prompt":
            turns(("user", "a"), ("assistant", "b"), ("user", "c"))["messages"], "completion": [dict(role="assistant",
            content="d")]}
        assert find_rows([dict(messages=asked[2:], chosen=chosen, rejected="e")])[0] == turns(("user", "c"),
            ("assistant", "d"))
    whole = turns(("user", "c"), ("assistant", "d"))
    assert find_rows([dict(whole, prompt="c", chosen=whole["messages"], rejected=[])])[0] == whole
    assert find_rows([dict(whole, chosen=True)])[0] == whole  # a mark of whoever chose the row
    pair = dict(prompt=[dict(role="user", content="c")], completion=dict(role="assistant", content="d"))
    assert find_rows([pair])[0] == whole


@pytest.mark.parametrize("row, words", [(dict(document="a", summary="b", id=1), "user ← document"),
    (dict(article="a", highlights="b"), "user ← article"), (dict(dialogue="a", summary="b"), "user ← dialogue"),
    (dict(instruction="Sum up", document="a", summary="b"), "user ← instruction + document")])
def test_a_summary_is_the_answer(row, words):
    rows = find_rows([row])
    assert rows[0]["messages"][1]["content"] == "b" and words in repr(rows)


def test_a_summary_beside_a_text_is_not_taken():
    assert find_rows([dict(text="a", summary="b")])[0] == dict(text="a")
    with pytest.raises(RecipeError, match="label is in one column"):
        find_rows([dict(text="a", b="b")], columns=dict(text="text", label=["b"]))


def test_names_of_classes_are_kept():
    from datasets import ClassLabel, Dataset, Features, Value
    rows = Dataset.from_dict(dict(text=["a", "b", "c"], label=[1, 0, 1]),
        features=Features(dict(text=Value("string"), label=ClassLabel(names=["bad", "good"]))))
    assert [r["label"] for r in find_rows(rows)] == ["good", "bad", "good"]
    assert [r["label"] for r in find_rows(rows.to_iterable_dataset())] == ["good", "bad", "good"]


def test_a_split_that_is_not_among_several():
    row = [dict(prompt="a", completion="b")]
    with pytest.raises(RecipeError, match="there is no split 'val'; the data set has train, test"):
        find_rows(dict(train=row, test=row), "val")
    with pytest.raises(RecipeError, match="the data set has a"): find_rows(dict(a=1))
