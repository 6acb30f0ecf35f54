"""Preparation beside TRL's own on one data set in one run; peak memory on a million rows; useful tokens a second, packed against padded; what TRL does on the rows of the needs

Run: python tests/bench/data.py [speed memory packing needs], all unless named. TRL is no dependency of loranb: it is found where it is installed, or in the folder
that TRL_AT names, such as that of `pip install --no-deps --target FOLDER trl==1.16.0`.
"""
import contextlib, io, logging, os, random, resource, shutil, subprocess, sys, tempfile, time, warnings
from pathlib import Path

if at := os.environ.get("TRL_AT"): sys.path.append(at)
HOME = os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="loranb-bench-"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch
from datasets import Dataset, disable_progress_bars

from loranb.models import petit
from loranb.models.hub import load_tokenizer
from loranb.models.loading import load_base
from loranb.data.batches import collate, not_padding
from loranb.data.encoding import encode_row, prepare
from loranb.models.loss import token_loss
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe

disable_progress_bars()
for name in ("trl", "transformers", "datasets", "bitsandbytes"): logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


def trl():
    try: from trl import SFTConfig, SFTTrainer
    except ImportError:
        raise SystemExit("TRL is not here. `pip install --no-deps --target FOLDER trl==1.16.0`, then TRL_AT=FOLDER "
            "python tests/bench/data.py") from None
    return SFTConfig, SFTTrainer


def chats(n, seed=0):
    "Rows of one to three turns on petit's world"
    rng, base = random.Random(seed), [r["messages"] for t in ("translate", "summarize", "chat") for r in petit.task(t,
        "train")[:2000]]
    base = [[m for m in ms if m["role"] != "system"] for ms in base]
    for _ in range(n): yield dict(messages=[m for ms in rng.choices(base, k=rng.choice((1, 1, 2, 3))) for m in ms])


def clock(f):
    "Seconds of wall and of CPU time, and the result"
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def prepared_by_trl(rows, model, tok, **kw):
    SFTConfig, SFTTrainer = trl()
    args = SFTConfig(output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, bf16=False,
        **{"max_length": 256, "assistant_only_loss": True, "gradient_checkpointing": False, **kw})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows) if isinstance(rows, list)
            else rows, processing_class=tok).train_dataset


def speed(n=100_000):
    model, tok = load_base(Recipe(quant="none"))
    ds = Dataset.from_list(list(chats(n)))
    prepared_by_trl(list(chats(200, 1)), model, tok)
    prepare(Recipe(data=list(chats(200, 1)), test_size=0), tok)
    ours, cpu, data = clock(lambda: prepare(Recipe(data=ds, test_size=0), tok))
    theirs, cpu_theirs, other = clock(lambda: prepared_by_trl(ds, model, tok))
    again, _, _ = clock(lambda: prepare(Recipe(data=ds, test_size=0), tok))
    same = sum(data.train[i].input_ids == other[i]["input_ids"] and data.train[i].labels == other[i]["labels"]
        for i in range(0, n, n//500))
    print(f"{n:,} chats, {data.train.lengths.mean():.0f} tokens each, read, rendered, tokenized and masked, one "
        f"thread, CPU time: loranb {n/cpu:,.0f} rows/s, TRL {n/cpu_theirs:,.0f} rows/s")
    print(f"ratio {cpu_theirs/cpu:.2f} x to be at least 1 x (by the clock: {ours:.0f} s and {theirs:.0f} s, "
        f"{theirs/ours:.2f} x); again from the cache {again:.1f} s; equal tokens and labels in {same} of 500 rows "
        "looked at")


def memory(n=1_000_000):
    "In a process of its own: peak of resident memory above what the imports take; mapped files are counted apart"
    code = f"""
import sys, os; sys.path[:0] = {sys.path!r}
sys.path.insert(0, {str(Path(__file__).parent)!r})
import json, resource, data as bench
from loranb.core.recipe import Recipe
from loranb.models.hub import load_tokenizer
from loranb.models import petit
tok = load_tokenizer(petit.path())
bench.prepare(Recipe(data=list(bench.chats(50)), test_size=0), tok)
def own(): return next(int(l.split()[1])/1024 for l in open("/proc/self/status") if l.startswith("RssAnon"))
peak, start = [own()], own()
import threading, time
def watch():
    while True: peak.append(max(peak.pop(), own())); time.sleep(.05)
threading.Thread(target=watch, daemon=True).start()
d = bench.prepare(Recipe(data=sys.argv[1], max_length=256), tok)
assert len(d.train) > {n}*.99 and len(d.train[-1].input_ids)
print(start, peak[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024, int(d.train.lengths.sum()))
"""
    folder = Path(tempfile.mkdtemp())
    import json
    with open(folder/"rows.jsonl", "w") as f:
        some = [json.dumps(r) for r in chats(20_000)]
        for i in range(n): f.write(some[i % 20_000][:-1] + f', "id": {i}}}\n')
    wall, _, out = clock(lambda: subprocess.run([sys.executable, "-c", code, str(folder/"rows.jsonl")], check=True,
        capture_output=True, text=True).stdout)
    start, peak, resident, tokens = map(float, out.split()[-4:])
    print(f"{n:,} rows, {(folder/'rows.jsonl').stat().st_size/1e6:,.0f} MB of JSONL, {tokens/1e6:,.0f} M tokens: "
        f"{wall:.0f} s; peak {peak - start:,.0f} MB above the {start:,.0f} MB of the process at rest "
        f"({resident:,.0f} MB with mapped pages)")
    shutil.rmtree(folder)


def packing(steps=12):
    "Forward and backward of LoRA on rows of 4 to 40 tokens and a few of 256"
    from loranb.models.lora import attach
    rng, words = random.Random(0), "the cat sleeps and the dog eats near the old house with a red door".split()
    rows = [dict(prompt="say:", completion=" "
        + " ".join(rng.choices(words, k=rng.choice((3, 5, 8, 12, 20, 30)) if rng.random() < .95 else 200)))
        for _ in range(3000)]
    recipe = Recipe(data=rows, quant="none", max_length=256, test_size=0, packing=True)
    model, tok = load_base(recipe)
    model = attach(model, recipe).train()
    packed = prepare(recipe, tok).train
    kinds = dict(padded=(packed.tokens, 16), packed=(packed, 2), grouped=(packed.tokens, 16))
    from loranb.data.batches import ByLength
    took, useful = {k: 0. for k in kinds}, {k: 0 for k in kinds}
    orders = dict(padded=torch.randperm(len(packed.tokens)).tolist(), packed=torch.randperm(len(packed)).tolist(),
        grouped=list(ByLength(packed.tokens.lengths, 16)))
    for step in range(steps):
        for kind, (items, b) in kinds.items():
            batch = collate([items[i] for i in orders[kind][step*b:(step + 1)*b]], tok.pad_token_id)
            _, cpu, _ = clock(lambda: token_loss(model, batch).backward())
            if step > 1: took[kind], useful[kind] = took[kind] + cpu, useful[kind] + int(not_padding(batch).sum())
    rate = {k: useful[k]/took[k] for k in kinds}
    print("useful tokens a second of forward and backward, rows of 3 to 30 words and one in twenty of 200, batches "
        "of 16 rows or of 2 packed ones: " + ", ".join(f"{k} {v:,.0f}" for k, v in rate.items()))
    print(f"ratio packed to padded {rate['packed']/rate['padded']:.2f} x to be at least 2 x; grouped to padded "
        f"{rate['grouped']/rate['padded']:.2f} x; full: {packed.lengths.mean()/256:.0%}")


def needs():
    "What TRL makes of the rows on which other pipelines fail; a table, nothing is asserted"
    from templates import ALL, MANY, ONE
    from test_chat import tokenizer
    from test_needs import LONG
    from transformers import LlamaConfig, LlamaForCausalLM
    def case(title, name, rows, judge, **kw):
        tok = tokenizer(ALL[name]) if name else load_tokenizer(petit.path())
        tok.pad_token = kw.pop("pad", tok.eos_token)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), hidden_size=8, intermediate_size=8,
            num_hidden_layers=1, num_attention_heads=1))
        if kw.pop("bos", False):
            from tokenizers.processors import TemplateProcessing
            tok.backend_tokenizer.post_processor = TemplateProcessing(single=f"{tok.bos_token} $A",
                special_tokens=[(tok.bos_token, tok.bos_token_id)])
        def of(f):
            try: return judge(tok, f())
            except Exception as e: return f"{type(e).__name__}: {str(e).splitlines()[0][:70]}"
        theirs = of(lambda: [(r["input_ids"], r["labels"]) for r in prepared_by_trl(rows, model, tok, **kw)])
        ours = of(lambda: [(r.input_ids, r.labels)
            for r in prepare(Recipe(data=rows, max_length=kw.get("max_length", 256), test_size=0), tok).train])
        print(f"| {title} | {theirs} | {ours} |")
    said = lambda tok, rows: repr(tok.decode([l for l in rows[0][1] if l != -100])[-60:])
    kept = lambda tok, rows: f"{len(rows)} of 2 rows kept"
    starts = lambda tok, rows: f"{rows[0][0].count(tok.bos_token_id)} start token(s)"
    many = [dict(messages=MANY)]
    print("| need and rows | TRL | loranb |\n|---|---|---|")
    case("4: of two rows one is cut before its answer", None, [dict(messages=ONE), dict(messages=LONG)], kept,
        max_length=32)
    for name in ("chatml (Yi)", "Llama 3", "Mistral v3, system and tools in the last question", "Gemma 2, no system",
            "Qwen 3, thoughts of the past are gone", "gpt-oss, channels and two ends"):
        case(f"5: {name}, no marks", name, many, said)
    case("6: marks that leave the end token out", "chatml, the marks leave the end token out", many, said)
    case("6: pad is the end token, everything learned", "Granite", many, said, assistant_only_loss=False)
    case("6: a template without an end token, everything learned", "Alpaca style, no end token", many, said,
        assistant_only_loss=False)
    case("6: prompt and completion", None, [dict(prompt="a =", completion=" b")], said, assistant_only_loss=False)
    case("7: a template with a start token", "Llama 3", many, starts, assistant_only_loss=False, bos=True)
    case("7: a prompt that begins with one", "Llama 3", [dict(prompt="<|begin_of_text|>a =", completion=" b")], starts,
        assistant_only_loss=False, bos=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ("speed", "memory", "packing", "needs"): globals()[name]()
    if "loranb-bench-" in HOME: shutil.rmtree(HOME, ignore_errors=True)
