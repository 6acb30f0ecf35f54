"""What measuring costs a run: whole runs at the defaults and whole runs without spectra, interleaved, each in a process of its own

    python tests/bench/live.py [--pairs 3] [--only "petit"]

A line per base: the medians of the pairs' ratios, of the median step and of all steps, each beside its limit, and the load of the machine. The
25 M Llama has random weights and rows of 512 tokens, four at once.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

LIMITS = {"petit": .03, "25 M Llama": .02}
STEPS = 60


def llama(folder):
    "A Llama of 24.9 M random parameters in bfloat16, with petit's tokenizer, and rows of more than 512 tokens"
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers import AutoTokenizer
    from loranb.models import petit
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=16000, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6, tie_word_embeddings=True)
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(petit.path()).save_pretrained(folder)
    texts = [" ".join(m["content"] for m in r["messages"]) for r in petit.task("translate", "train")]
    rows = [dict(text=" ".join(texts[i:i + 60])) for i in range(0, len(texts), 12)]
    (folder/"rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def fields(name, folder):
    "What differs from the defaults of a recipe"
    if name == "petit": return {}
    return dict(model=str(folder), data=str(folder/"rows.jsonl"), train_on="all", max_length=512, per_device_train_batch_size=4, gradient_accumulation_steps=1, gradient_checkpointing=False, r=16,
        target_modules="all-linear", test_size=8)


def one(name, folder, steps, spectra):
    "Seconds of the steps of one run"
    import torch
    from loranb import Recipe, Run
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    recipe = Recipe(**fields(name, Path(folder)), max_steps=steps, eval_steps=0, sample_steps=0, spectra_steps=spectra)
    run, told = Run(recipe, Path(tempfile.mkdtemp())/"run"), []
    run.on(lambda e: told.append(time.perf_counter()) if e["type"] == "step" else None).train()
    print(json.dumps(dict(seconds=[e["seconds"] for e in run.of_type("step")], frames=len(run.of_type("spectra")), cost=run.of_type(
        "spectra")[-1]["cost"], wall=told)))


def main(pairs, only):
    load = os.getloadavg()[0]
    for name in LIMITS:
        if only and name != only: continue
        with tempfile.TemporaryDirectory() as folder:
            if name != "petit": llama(Path(folder))
            ask = lambda spectra: json.loads(subprocess.run([sys.executable, __file__, "--one", name, "--folder", folder, "--spectra",
                str(spectra)], capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            found = [(ask(-1), ask(0)) for _ in range(pairs)]
        of = lambda do: statistics.median(do(a)/do(b) - 1 for a, b in found)
        step, whole = of(lambda o: statistics.median(o["seconds"])), of(lambda o: o["wall"][-1] - o["wall"][0])
        usual = statistics.median(statistics.median(b["seconds"]) for _, b in found)
        print(f"{name:12} {1e3*usual:6.0f} ms a step; measured in {found[0][0]['frames']} of {STEPS}: the median step {100*step:+.1f} %, the "
            f"steps in all {100*whole:+.1f} % (limit {100*LIMITS[name]:.0f} %); pairs "
            + ", ".join(f"{100*((a['wall'][-1] - a['wall'][0])/(b['wall'][-1] - b['wall'][0]) - 1):+.1f} %" for a, b in found)
            + f"; load {load:.1f}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pairs", type=int, default=3); p.add_argument("--only", choices=[*LIMITS])
    p.add_argument("--one"); p.add_argument("--folder"); p.add_argument("--spectra", type=int)
    a = p.parse_args()
    one(a.one, a.folder, STEPS, a.spectra) if a.one else main(a.pairs, a.only)
