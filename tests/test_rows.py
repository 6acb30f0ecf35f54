"Whatever comes in is read, repaired and said so, or refused with the number of the row."
import bz2, gzip, io, json, lzma, math, zipfile

import numpy as np
import pandas as pd
import pyarrow as pa, pyarrow.parquet as pq
import pytest

from loranb import DataError
from loranb.recipe import Recipe, RecipeError
from loranb.rows import find_rows, held_out, rows_of

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
REFUSED = {
    "truncated JSONL": ("a.jsonl", lines(OK, OK) + '{"question": "3', 3, ["a.jsonl", "row 3 (line 3)", "is not JSON"]),
    "truncated JSON array": ("a.json", json.dumps([OK, OK])[:-9], 2, ["row 2", "ends in the middle"]),
    "array without its end": ("a.json", json.dumps([OK, OK])[:-1], 3, ["row 3", "ends in the middle"]),
    "something behind the array": ("a.json", json.dumps([OK]) + "\n" + json.dumps(OK), 2, ["row 2 (line 1)", "behind the end of the array"]),
    "array with a broken row": ("a.json", '[{"text": "a"},\n {"text": b}]', 2, ["row 2 (line 2)", "is not JSON"]),
    "JSONL with single quotes": ("a.jsonl", lines(OK, "{'question': 'a'}"), 2, ["row 2 (line 2)", "is not JSON"]),
    "trailing comma": ("a.jsonl", lines(OK, '{"question": "a", "answer": "b",}'), 2, ["row 2", "is not JSON"]),
    "a line of words": ("a.jsonl", lines(OK, "hello"), 2, ["row 2", "is not JSON"]),
    "broken first line": ("a.jsonl", lines('{"question": ', OK), 1, ["row 1", "is not JSON"]),
    "a row that is a number": ("a.jsonl", lines(OK, "17"), 2, ["row 2", "must be an object"]),
    "a row that is null": ("a.jsonl", lines(OK, "null"), 2, ["row 2", "must be an object"]),
    "a row that is a list of words": ("a.jsonl", lines(OK, '["a", "b"]'), 2, ["row 2", "must be an object"]),
    "an empty object": ("a.jsonl", lines(OK, "{}"), 2, ["row 2", "has no columns"]),
    "duplicate keys": ("a.jsonl", lines(OK, '{"question": "a", "answer": "b", "answer": "c"}'), 2, ["row 2", "'answer' twice"]),
    "duplicate keys in an array": ("a.json", '[{"text": "a"}, {"text": "a", "text": "b"}]', 2, ["row 2", "'text' twice"]),
    "nested a thousand deep": ("a.jsonl", lines(OK, "[" * 100000), 2, ["row 2", "nested too deeply"]),
    "invalid UTF-8": ("a.jsonl", lines(OK).encode() + b'{"question": "caf\xe9", "answer": "b"}\n', 2, ["row 2 (line 2)", "not UTF-8", "0xe9", "Save the file as UTF-8"]),
    "Latin-1 CSV": ("a.csv", "question,answer\nun café,4\n".encode("latin-1"), 1, ["line 2", "not UTF-8"]),
    "UTF-16 cut in the middle": ("a.jsonl", lines(OK, OK).encode("utf-16")[:-3], 2, ["behind line 1"]),
    "a zip": ("a.jsonl", zipped("a.jsonl"), None, ["zip archive", "Unpack it"]),
    "an .xlsx": ("a.csv", zipped("xl/workbook.xml"), None, ["save the sheet as CSV"]),
    "a PNG": ("a.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, ["not a text file", "PNG"]),
    "a PDF": ("a.txt", b"%PDF-1.7 ...", None, ["PDF"]),
    "a pickle": ("a.jsonl", b"\x80\x04\x95", None, ["pickle"]),
    "an SQLite file": ("a.db", b"SQLite format 3\x00" + bytes(90), None, ["SQLite"]),
    "an unknown kind": ("a.doc", "Hello\n", None, ["no kind that is known", ".jsonl"]),
    "an empty file": ("a.jsonl", "", None, ["has no rows", "empty"]),
    "a file of blank lines": ("a.csv", "\n \n\n", None, ["has no rows", "empty"]),
    "a header alone": ("a.csv", "question,answer\n", None, ["has no rows"]),
    "a gzip cut off": ("a.jsonl.gz", gzip.compress(lines(*[{"text": str(i)*99} for i in range(2000)]).encode())[:-900], ..., ["cut off or damaged"]),
    "a gzip of nothing that is known": ("a.gz", gzip.compress(b"\x89PNG\r\n\x1a\n"), None, ["PNG"]),
    "text under a Parquet name": ("a.parquet", lines(OK), None, ["no Parquet file"]),
    "a Parquet file cut off": ("a.parquet", parquet(pa.table({"text": ["a"]*999}))[:-40], None, ["cannot be read as Parquet", "Is it whole?"]),
    "an Arrow file cut off": ("a.arrow", b"ARROW1\0\0" + b"\x01"*40, None, ["cannot be read as Arrow"]),
    "a CSV with a stray quote": ("a.csv", 'question,answer\na,b\n"c" d,e\nf,g\n', 2, ["row 2 (line 3)", "is not CSV", "quote"]),
    "a CSV with an open quote": ("a.csv", 'question,answer\na,b\n"c,d\ne,f\n', 2, ["row 2 (line 3)", "quote"]),
    "a CSV with too many values": ("a.csv", "question,answer\na,b\nc,d,e\n", 2, ["row 2 (line 3)", "3 values", "2 names"]),
    "a CSV with too few values": ("a.csv", "question,answer\na\n", 1, ["row 1 (line 2)", "1 values", "2 names"]),
    "a CSV with a column twice": ("a.csv", "question,answer,answer\na,b,c\n", None, ["'answer' twice"]),
    "a CSV with an empty cell": ("a.csv", "question,answer\na,b\nc,\n", 2, ["row 2 (line 3)", "assistant says nothing"]),
    "a CSV without a header": ("a.csv", "what is this,a thing\nand that,another\n", 1, ["'what is this'", "columns="]),
    "unknown columns": (None, [{"q": "a", "a": "b"}], 1, ["'q', 'a'", "columns={'user': 'q', 'assistant': 'a'}"]),
    "a null answer": (None, [OK, {"question": "a", "answer": None}], 2, ["row 2", "assistant (column 'answer') is empty (null)"]),
    "a null question": (None, [OK, {"question": None, "answer": "b"}], 2, ["row 2", "user (column 'question') is empty (null)"]),
    "NaN as the answer": (None, [OK, {"question": "a", "answer": math.nan}], 2, ["row 2", "NaN"]),
    "NaN in a JSON file": ("a.jsonl", lines(OK, '{"question": "a", "answer": NaN}'), 2, ["row 2", "NaN"]),
    "true as the answer": (None, [OK, {"question": "a", "answer": True}], 2, ["row 2", "must be text", "True"]),
    "an object as the answer": (None, [OK, {"question": "a", "answer": {"text": ["b"]}}], 2, ["row 2", "must be text"]),
    "bytes as the text": (None, [{"text": b"abc"}], 1, ["row 1", "must be text"]),
    "an empty text": (None, [{"text": "a"}, {"text": " \n"}], 2, ["row 2", "the text is empty"]),
    "an empty completion": (None, [{"prompt": "a", "completion": ""}], 1, ["the completion is empty"]),
    "messages that are null": (None, [CHAT, {"messages": None}], 2, ["row 2", "messages is empty (null)"]),
    "messages that are empty": (None, [CHAT, {"messages": []}], 2, ["row 2", "empty list"]),
    "messages that are a text": (None, [CHAT, {"messages": "Hello"}], 2, ["row 2", "messages must be a list"]),
    "messages that are one turn": (None, [CHAT, {"messages": CHAT["messages"][0]}], 2, ["row 2", "messages must be a list"]),
    "messages nested too deep": (None, [CHAT, {"messages": [CHAT["messages"]]}], 2, ["row 2", "one level too deep"]),
    "messages that are broken JSON": (None, [{"messages": '[{"role": "user", "content": "a"'}], 1, ["is a text that is no JSON"]),
    "a turn that is a text": (None, [{"messages": ["Hello", "Bonjour"]}], 1, ["turn 1 must be"]),
    "a turn without a role": (None, [{"messages": [{"content": "Hello"}]}], 1, ["turn 1 has no role"]),
    "a turn without content": (None, [{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}], 1, ["turn 1 (user) has no content"]),
    "an unknown role": (None, [CHAT, turns(("asistant", "a"))], 2, ["row 2", "'asistant'", "Did you mean 'assistant'?"]),
    "a role that is a number": (None, [turns((1, "a"))], 1, ["role 1, which is no text"]),
    "a content that is null": (None, [said("a"), asked(None)], 2, ["row 2", "turn 1 (user)", "null"]),
    "a content that is an object": (None, [said({"text": "a"})], 1, ["turn 2 (assistant)", "must be text"]),
    "an image part": (None, [asked([{"type": "text", "text": "What is it?"}, {"type": "image", "image": "cat.png"}])], 1, ["turn 1 (user)", "'image'", "text alone"]),
    "an image_url part": (None, [asked([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}])], 1, ["'image_url'"]),
    "an audio part": (None, [asked([{"type": "input_audio", "data": ""}])], 1, ["'input_audio'"]),
    "an assistant that says nothing": (None, [CHAT, said("  ")], 2, ["row 2", "assistant says nothing"]),
    "no assistant": (None, [turns(("user", "a"), ("user", "b"))], 1, ["assistant says nothing"]),
    "a tool call without a name": (None, [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {}}}]}]}], 1, ["tool call without a name"]),
    "tool arguments that are no object": (None, [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}]}], 1, ["'f'", "no object"]),
    "tools that are no list": (None, [{**CHAT, "tools": "a calculator"}], 1, ["tools must be a list"]),
    "tools that are a number": (None, [{**CHAT, "tools": 3}], 1, ["tools must be a list"]),
    "a list of numbers": (None, [1, 2], 1, ["row 1", "must be an object"]),
    "an empty list": (None, [], None, ["has no rows"]),
    "an empty DataFrame": (None, pd.DataFrame({"question": [], "answer": []}), None, ["has no rows"]),
    "a DataFrame with missing values": (None, pd.DataFrame({"question": ["a", "b"], "answer": ["c", None]}), 2, ["row 2", "is empty"]),
    "a Parquet file with a null": ("a.parquet", parquet(pa.table({"question": ["a", "b"], "answer": ["c", None]})), 2, ["row 2", "null"]),
    "half a million characters and then nothing": ("a.jsonl", '{"text": "' + "x"*500_000, 1, ["row 1", "is not JSON"]),
}


def made(tmp_path, name, content):
    if name is None: return content
    (tmp_path/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(tmp_path/name)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    name, content, row, words = REFUSED[case]
    with pytest.raises(DataError) as e: find_rows(made(tmp_path, name, content))
    text = str(e.value)
    assert isinstance(e.value, RecipeError) and (row is ... or e.value.row == row) and all(w in text for w in words), (e.value.row, text)
    assert "\n" not in text and len(text) < 500 and text.startswith("data: ") and not text.endswith("..")


def parts(*texts): return [{"type": "text", "text": t} for t in texts]
def calls(args): return {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": args}}]}]}


CALLED = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]}]}
QA = turns(("user", "2 + 2?"), ("assistant", "4"))

# name: (file name or None, content, the rows, what is said to be repaired)
REPAIRED = {
    "a byte-order mark": ("a.jsonl", "\ufeff" + lines(OK), [QA], {"byte-order mark": 1}),
    "a byte-order mark in CSV": ("a.csv", "\ufeffquestion,answer\n2 + 2?,4\n", [QA], {"byte-order mark": 1}),
    "UTF-16": ("a.jsonl", lines(OK).encode("utf-16"), [QA], {"encoding": 1}),
    "UTF-16 without a mark": ("a.csv", "question,answer\n2 + 2?,4\n".encode("utf-16-le"), [QA], {"encoding": 1}),
    "UTF-32": ("a.json", json.dumps([OK]).encode("utf-32"), [QA], {"encoding": 1}),
    "blank lines": ("a.jsonl", "\n" + lines(OK) + "\n  \n" + lines(OK), [QA, QA], {"blank line": 3}),
    "Windows line ends": ("a.jsonl", lines(OK, OK).replace("\n", "\r\n"), [QA, QA], {}),
    "a line separator inside a text": ("a.jsonl", json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False), [{"text": "a\u2028b\x85c"}], {}),
    "no line feed at the end": ("a.jsonl", lines(OK)[:-1], [QA], {}),
    "gzip": ("a.jsonl.gz", gzip.compress(lines(OK).encode()), [QA], {"compressed": 1}),
    "gzip without its name": ("a.jsonl", gzip.compress(lines(OK).encode()), [QA], {"compressed": 1}),
    "bz2": ("a.csv.bz2", bz2.compress(b"question,answer\n2 + 2?,4\n"), [QA], {"compressed": 1}),
    "xz": ("a.json.xz", lzma.compress(json.dumps([OK]).encode()), [QA], {"compressed": 1}),
    "semicolons": ("a.csv", "question;answer\n2 + 2?;4\n", [QA], {"separator": 1}),
    "tabs under .csv": ("a.csv", "question\tanswer\n2 + 2?\t4\n", [QA], {"separator": 1}),
    "TSV": ("a.tsv", "question\tanswer\n2 + 2?\t4\n", [QA], {}),
    "a line feed in a cell": ("a.csv", 'question,answer\n"2\n+ 2?",4\n', [turns(("user", "2\n+ 2?"), ("assistant", "4"))], {}),
    "spaces around the names of a header": ("a.csv", " Question , ANSWER\n2 + 2?,4\n", [QA], {}),
    "JSON under the name of text": ("a.data", lines(OK), [QA], {}),
    "an array without line feeds": ("a.json", json.dumps([OK, OK]), [QA, QA], {}),
    "an array under .jsonl": ("a.jsonl", json.dumps([OK, OK], indent=1), [QA, QA], {}),
    "one row over many lines": ("a.json", json.dumps(OK, indent=2), [QA], {}),
    "rows over many lines": ("a.json", json.dumps(OK, indent=2)*2, [QA, QA], {}),
    "rows under data": ("a.json", json.dumps({"version": 1, "data": [OK, OK]}), [QA, QA], {"wrapped": 1}),
    "rows under train": ("a.json", json.dumps({"train": [OK], "test": [OK, OK]}), [QA], {"wrapped": 1}),
    "columns as lists": ("a.json", json.dumps({"question": ["2 + 2?"]*2, "answer": ["4"]*2}), [QA, QA], {"wrapped": 1}),
    "roles in capitals": (None, [turns(("USER", "2 + 2?"), ("Assistant", "4"))], [QA], {"role": 2}),
    "roles by other names": (None, [turns(("human", "2 + 2?"), ("bot", "4"))], [QA], {"role": 2}),
    "a developer turn": (None, [turns(("developer", "Be brief."), ("user", "a"), ("assistant", "b"))], [turns(("system", "Be brief."), ("user", "a"), ("assistant", "b"))], {"role": 1}),
    "content in parts": (None, [turns(("user", parts("2 + ", "2?")), ("assistant", parts("4")))], [QA], {"parts": 2}),
    "parts that are texts": (None, [turns(("user", ["2 + ", "2?"]), ("assistant", "4"))], [QA], {"parts": 1}),
    "a number as the answer": (None, [{"question": "2 + 2?", "answer": 4}], [QA], {"number": 1}),
    "numbers from numpy": (None, [{"question": "2 + 2?", "answer": np.int64(4)}], [QA], {"number": 1}),
    "a number as content": (None, [turns(("user", "2 + 2?"), ("assistant", 4))], [QA], {"number": 1}),
    "mixed types in a column": ("a.jsonl", lines(OK, {"question": "2 + 2?", "answer": 4}), [QA, QA], {"number": 1}),
    "messages as JSON text": (None, [{"messages": json.dumps(QA["messages"])}], [QA], {"json": 1}),
    "messages as Python text": ("a.csv", 'messages\n"' + str(QA["messages"]) + '"\n', [QA], {"json": 1}),
    "messages column by column": (None, [{"messages": {"role": ["user", "assistant"], "content": ["2 + 2?", "4"]}}], [QA], {"columns of turns": 1}),
    "messages from numpy": (None, [{"messages": np.array(QA["messages"])}], [QA], {}),
    "half a character": ("a.jsonl", '{"text": "a\\ud83d"}', [{"text": "a\ufffd"}], {"letters": 1}),
    "texts": (None, ["a", "b"], [{"text": "a"}, {"text": "b"}], {"lines": 2}),
    "lists of turns": (None, [QA["messages"]], [QA], {"lines": 1}),
    "arguments as text": (None, [calls('{"a": 2}')], [CALLED], {"arguments": 1}),
    "arguments with nulls from a table": ("a.parquet", parquet(pa.Table.from_pylist([calls({"a": 2}), calls({"b": 3})])), [CALLED, {"messages": [CALLED["messages"][0], {**CALLED["messages"][1], "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"b": 3}}}]}]}], {}),
    "an empty input": (None, [{"instruction": "2 + 2?", "input": "", "output": "4"}, {"instruction": "2 + 2?", "input": None, "output": "4"}], [QA, QA], {}),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_repaired_and_said_so(case, tmp_path):
    name, content, rows, repairs = REPAIRED[case]
    found = find_rows(made(tmp_path, name, content))
    assert list(found) == rows and {k: n for k, (n, _) in found.about.repairs.items()} == repairs
    assert all(f"{n:,} ×" in str(found.about) for n in repairs.values())
    assert find_rows([*found]) == found and not find_rows([*found]).about.repairs  # what comes out goes in again as it is


def test_there_are_at_least_sixty(): assert len(REFUSED) + len([c for c in REPAIRED.values() if c[3]]) >= 60


def test_ten_megabytes_in_one_row(tmp_path):
    big = {"text": "word "*2_000_000}
    for name, text in (("a.jsonl", lines({"text": "a"}, big)), ("a.json", json.dumps([{"text": "a"}, big])), ("a.csv", "text\na\n" + big["text"] + "\n")):
        rows = find_rows(made(tmp_path, name, text))
        assert len(rows) == 2 and rows[1] == big
