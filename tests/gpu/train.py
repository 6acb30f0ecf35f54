"""What a card does in training: types, memory, speed, running out of memory and coming back, and a T4 acted out on any card.

    python tests/gpu/train.py [--out FOLDER]

Random weights of the shape of a 1B model. Without a GPU the same checks run on a small shape on the CPU, which shows that
the script works and nothing more: the CPU has no allocator to be full, so its out-of-memory error is raised by hand.
"""
import argparse, datetime, gc, json, pathlib, sys, tempfile

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from first_light import CUDA, ROWS, random_base
from loranb import evaluate
from loranb.base import compute_dtype
from loranb.recipe import Recipe, RecipeError
from loranb.train import Run

GB, T4 = 1e9, 15*1e9
BASE = dict(data=ROWS, r=16, max_steps=8, max_length=256, per_device_train_batch_size=8, gradient_accumulation_steps=1, eval_steps=0, spectra_steps=0, test_size=0, save_steps=0, acknowledged=["answer-cut", "end-not-learned", "nothing-learned"])
if not CUDA: BASE |= dict(max_steps=3, max_length=96, per_device_train_batch_size=2, data=[r for r in ROWS if len(r["prompt"]) < 200][:16])


def used():
    "Bytes held by tensors, after everything that can go has gone"
    gc.collect()
    if CUDA: torch.cuda.empty_cache(); torch.cuda.synchronize()
    return torch.cuda.memory_allocated() if CUDA else 0


def case(base, out, **kw):
    "One run: what it computed in, what it took and how fast it was"
    if CUDA: torch.cuda.reset_peak_memory_stats()
    run = Run(Recipe(**{**BASE, "model": str(base), **kw}), out).train()
    trained, steps = [p for p in run.model.parameters() if p.requires_grad], run.of_type("step")[2:]
    found = {"compute dtype": str(run.model.get_base_model().loranb_dtype).removeprefix("torch."), "trained in float32": {p.dtype for p in trained} == {torch.float32},
        "finite": all(abs(e["loss"]) < 1e4 for e in run.of_type("step")), "proof": all(ok for ok, _ in run.checks),
        "tokens a second": round(sum(e["tokens"] for e in steps)/sum(e["seconds"] for e in steps)), "peak GB": round(torch.cuda.max_memory_allocated()/GB, 2) if CUDA else None}
    run.release()
    return found


def fails(base, out):
    "A batch that does not fit: one sentence, the memory back to within 1 %, and the next, smaller run works"
    before, whole = used(), evaluate.held_out_loss
    if CUDA:  # leave so little that the batch cannot fit, whatever card this is
        torch.cuda.set_per_process_memory_fraction(min(1., (before + 4*GB)/torch.cuda.get_device_properties(0).total_memory))
        kw = dict(per_device_train_batch_size=256, max_length=1024, gradient_checkpointing=False, data=[{"prompt": "a "*900, "completion": " b"*100}]*256)
    else:
        def full(*args, **k): raise torch.OutOfMemoryError("CPU: raised by hand")
        kw, evaluate.held_out_loss = dict(eval_steps=1, test_size=4, data=BASE["data"]), full
    try:
        Run(Recipe(**{**BASE, "model": str(base), "quant": "nf4", "dtype": "auto", **kw}), out/"fails").train()
        words, failed = "it fitted", False
    except RecipeError as e: words, failed = str(e), True
    finally:
        evaluate.held_out_loss = whole
        if CUDA: torch.cuda.set_per_process_memory_fraction(1.)
    after = used()
    small = case(base, out/"small", quant="nf4", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    return {"failed in a sentence": failed and "out of memory" in words and "\n" not in words, "memory before GB": round(before/GB, 3), "after GB": round(after/GB, 3),
        "back to within 1 %": after - before <= .01*(torch.cuda.get_device_properties(0).total_memory if CUDA else 1), "the smaller run works": small["proof"] and small["finite"]}


def as_t4(base, out):
    "float16 with a loss scaler in 15 GB, as on a T4; on a CPU the type is float32, since only a card has a scaler"
    if CUDA: torch.cuda.set_per_process_memory_fraction(min(1., T4/torch.cuda.get_device_properties(0).total_memory))
    try: found = case(base, out/"t4", quant="nf4", dtype="float16" if CUDA else "auto", gradient_checkpointing=True, neftune_noise_alpha=5.)
    finally:
        if CUDA: torch.cuda.set_per_process_memory_fraction(1.)
    return {**found, "policy of 7.5": str(compute_dtype("cuda", capability=(7, 5))), "within 15 GB": not CUDA or found["peak GB"]*GB <= T4}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    tmp = pathlib.Path(tempfile.mkdtemp())
    params = random_base(tmp/"base")
    kinds = {"16 bits": dict(quant="none"), "int8": dict(quant="int8"), "NF4": dict(quant="nf4"), "NF4, no checkpointing": dict(quant="nf4", gradient_checkpointing=False), "NF4, DoRA": dict(quant="nf4", use_dora=True),
        "NF4, paged 32-bit Adam": dict(quant="nf4", optim="paged_adamw_32bit"), "NF4, LoRA+": dict(quant="nf4", loraplus_lr_ratio=8.)}
    if not CUDA: kinds = {k: kinds[k] for k in ("16 bits", "NF4", "NF4, DoRA")}
    rows = {name: case(tmp/"base", tmp/f"case{i}", **kw) for i, (name, kw) in enumerate(kinds.items())}
    result = dict(date=str(datetime.date.today()), device=torch.cuda.get_device_name() if CUDA else "CPU", parameters=params, cases=rows, fails=fails(tmp/"base", tmp), t4=as_t4(tmp/"base", tmp))
    (out/("train.json" if CUDA else "train_cpu.json")).write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    wrong = [(name, k) for name, r in {**rows, "out of memory": result["fails"], "as a T4": result["t4"]}.items() for k, v in r.items() if v is False]
    if CUDA and rows["NF4"]["peak GB"] >= rows["16 bits"]["peak GB"]: wrong.append(("NF4", "more memory than 16 bits"))
    if CUDA and rows["NF4"]["tokens a second"] < .9*rows["16 bits"]["tokens a second"]: wrong.append(("NF4", "less than 0.9 of the speed of 16 bits"))
    return f"failed: {wrong}" if wrong else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent/"results")
    raise SystemExit(main(p.parse_args().out))
