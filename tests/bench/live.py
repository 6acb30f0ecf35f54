"""What measuring costs a run: whole runs with spectra at the defaults and without, interleaved, each in a process of its own

    python tests/bench/live.py [--pairs 3] [--only "petit"]

A line per base: the medians of the pairs' ratios, of the median step and of all steps, beside the limit, and the load of
the machine. The 25 M Llama has random weights and rows of 512 tokens, four at once.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from train import base

LIMITS = {"petit": .03, "25 M Llama": .02}
STEPS = 60


def llama(folder):
    "A Llama of 24.9 M random parameters in bfloat16, with petit's tokenizer, and rows of more than 512 tokens"
    from loranb.models import petit
    base(folder, "bfloat16")
    texts = [" ".join(m["content"] for m in r["messages"]) for r in petit.task("translate", "train")]
    rows = [dict(text=" ".join(texts[i:i + 60])) for i in range(0, len(texts), 12)]
    (folder/"rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def fields(name, folder):
    "What differs from the defaults of a recipe"
    if name == "petit": return {}
    return dict(model=str(folder/"base"), data=str(folder/"rows.jsonl"), train_on="all", max_length=512, test_size=8, r=16,
        per_device_train_batch_size=4, gradient_accumulation_steps=1, gradient_checkpointing=False,
        target_modules="all-linear")


def one(name, folder, spectra):
    "The seconds of each step of one run, those from the first step's end to the last one's, and the frames"
    import torch
    from loranb import Recipe, Run
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    recipe = Recipe(**fields(name, folder), max_steps=STEPS, eval_steps=0, sample_steps=0, spectra_steps=spectra)
    told = []
    with tempfile.TemporaryDirectory() as home:
        run = Run(recipe, Path(home)/"run")
        run.on(lambda e: told.append(time.perf_counter()) if e["type"] == "step" else None).train()
        steps, frames = [e["seconds"] for e in run.of_type("step")], len(run.of_type("spectra"))
    print(json.dumps(dict(step=statistics.median(steps), whole=told[-1] - told[0], frames=frames)))


def ask(name, folder, spectra):
    "What `one` says in a process of its own"
    command = [sys.executable, __file__, "--one", name, "--folder", folder, "--spectra", str(spectra)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(pairs, only):
    for name, limit in LIMITS.items():
        if only and name != only: continue
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            if name != "petit": llama(Path(folder))
            found = [(ask(name, folder, -1), ask(name, folder, 0)) for _ in range(pairs)]
        more = {k: [with_[k]/without[k] - 1 for with_, without in found] for k in ("step", "whole")}
        step, whole = (statistics.median(o) for o in more.values())
        usual = statistics.median(without["step"] for _, without in found)
        each = ", ".join(f"{100*o:+.1f} %" for o in more["whole"])
        print(f"{name:12} {1e3*usual:6.0f} ms a step; measured in {found[0][0]['frames']} of {STEPS}: the median step "
            f"{100*step:+.1f} %, the steps in all {100*whole:+.1f} % (limit {100*limit:.0f} %); pairs {each}; load "
            f"{load:.1f}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pairs", type=int, default=3); p.add_argument("--only", choices=[*LIMITS])
    p.add_argument("--one"); p.add_argument("--folder", type=Path); p.add_argument("--spectra", type=int)
    a = p.parse_args()
    one(a.one, a.folder, a.spectra) if a.one else main(a.pairs, a.only)
