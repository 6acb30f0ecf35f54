"""The whole loop on a GPU with random weights of a real shape: one command, JSON and a table out.

    python tests/gpu/first_light.py [--out FOLDER]

Without a GPU the same checks run on a small shape on the CPU, which shows that the script works and nothing more.
"""
import argparse, datetime, gc, hashlib, json, pathlib, sys, tempfile, time
from importlib.metadata import version

import torch

from loranb import petit
from loranb.base import compute_dtype
from loranb.factors import factors
from loranb.recipe import Recipe
from loranb.spectra import Spectra
from loranb.train import Run

CUDA = torch.cuda.is_available()
SHAPE = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8) if CUDA else \
    dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
ROWS = [{"prompt": "The cat sleeps. "*(8 + i % 24), "completion": " Le chat dort."*(4 + i % 8)} for i in range(256)]


def random_base(folder):
    "A Llama of the shape of a 1B model with random weights and petit's tokenizer"
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(petit.path())
    with torch.device("cuda" if CUDA else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, tie_word_embeddings=True, **SHAPE)).to(torch.bfloat16 if CUDA else torch.float32)
    model.save_pretrained(folder), tok.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def fingerprint(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()[:16]


def one(base, root, quant, dtype, steps=12):
    "Train, stop after five steps and resume, compare with a run that was not stopped"
    recipe = Recipe(model=str(base), data=ROWS, quant=quant, dtype=dtype, r=16, max_steps=steps, max_length=256, per_device_train_batch_size=8,
        gradient_accumulation_steps=1, eval_steps=0, spectra_steps=4, test_size=0, save_steps=0, gradient_checkpointing=CUDA)
    if CUDA: torch.cuda.reset_peak_memory_stats()
    whole = Run(recipe, root/"whole").train()
    peak = torch.cuda.max_memory_allocated() if CUDA else None
    stopped = Run(recipe, root/"stopped")
    stopped.on(lambda e: stopped.stop() if e["type"] == "step" and e["step"] == 5 else None).train()
    obeyed = (stopped.state, stopped.steps) == ("stopped", 5)
    stopped.subscribers.clear()
    stopped.resume()
    a, b = (Spectra.of(r.adapter.path) for r in (whole, stopped))
    gap = max(abs(x - y).max()/max(x[0], 1e-30) for x, y in zip(a.sigma, b.sigma))
    trained = [p for p in whole.model.parameters() if p.requires_grad]
    events = whole.of_type("step")[2:]
    began = time.perf_counter(); live = Spectra.of(whole.model)
    if CUDA: torch.cuda.synchronize()
    seconds, parts = time.perf_counter() - began, factors(whole.model)
    worst = max(float((torch.linalg.svdvals((f.scaling*f.B.double() @ f.A.double())[:, :]).cpu()[:f.r] - torch.tensor(s)).abs().max())/max(float(s[0]), 1e-30)
                for f, s in list(zip(parts, live.sigma))[::max(1, len(parts)//6)])
    return {"quant": quant, "asked dtype": dtype, "compute dtype": str(whole.model.get_base_model().loranb_dtype), "adapters in float32": all(p.dtype == torch.float32 for p in trained),
        "finite loss": all(abs(e["loss"]) < 1e4 for e in events), "loss fell": events[-1]["loss"] < whole.of_type("step")[0]["loss"], "stop obeyed": obeyed,
        "resumed to the same bits": fingerprint(whole) == fingerprint(stopped), "resumed, relative gap of sigma": float(gap), "proof": all(ok for ok, _ in whole.checks),
        "modules": len(live), "spectra ms": round(1e3*seconds, 1), "spectra error stated": float(live.error.max()), "spectra error measured": worst,
        "share of the time for measuring %": round(100*whole.of_type("spectra")[-1]["cost"]/sum(e["seconds"] for e in whole.of_type("step")), 2),
        "tokens a second": round(sum(e["tokens"] for e in events)/sum(e["seconds"] for e in events)), "peak memory GB": peak and round(peak/1e9, 2)}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    rows, tmp = [], pathlib.Path(tempfile.mkdtemp())
    policy = {"T4 (7.5)": str(compute_dtype("cuda", capability=(7, 5))), "A100 (8.0)": str(compute_dtype("cuda", capability=(8, 0))), "here": str(compute_dtype("cuda" if CUDA else "cpu"))}
    params = random_base(tmp/"base")
    for quant, dtype in (("none", "auto"), ("nf4", "auto"), ("int8", "auto"), *([("none", "float16"), ("nf4", "float16")] if CUDA else [])):
        rows.append(one(tmp/"base", tmp/f"{quant}-{dtype}", quant, dtype))
        print({k: rows[-1][k] for k in ("quant", "compute dtype", "proof", "tokens a second")}, file=sys.stderr, flush=True)
        gc.collect()
        if CUDA: torch.cuda.empty_cache()
    libs = {n: version(n) for n in ("torch", "transformers", "peft", "bitsandbytes", "accelerate")}
    result = dict(date=str(datetime.date.today()), device=torch.cuda.get_device_name() if CUDA else "CPU", parameters=params, versions=libs, policy=policy, cases=rows)
    name = "first_light" if CUDA else "first_light_cpu"
    (out/f"{name}.json").write_text(json.dumps(result, indent=1))
    keys = list(rows[0])
    table = [f"{result['date']}, {result['device']}, {params/1e6:,.0f} M random weights, " + ", ".join(f"{k} {v}" for k, v in libs.items()), ""]
    table += ["| | " + " | ".join(f"{r['quant']} {r['asked dtype']}" for r in rows) + " |", "|---"*(len(rows) + 1) + "|"]
    table += [f"| {k} | " + " | ".join(str(r[k]) for r in rows) + " |" for k in keys[2:]]
    (out/f"{name}.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    wrong = [(r["quant"], k) for r in rows for k in ("adapters in float32", "finite loss", "stop obeyed", "proof") if not r[k]]
    wrong += [(r["quant"], "spectra") for r in rows if r["spectra error measured"] > max(r["spectra error stated"], 1e-6)]
    return f"failed: {wrong}" if wrong else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent/"results")
    raise SystemExit(main(p.parse_args().out))
