"Stage `first`: a run trains, is stopped, goes on, is saved and loaded again, and gives its memory back"
import hashlib, time
from functools import partial

import torch
from bases import CUDA, base_folder, fresh, gb, most, pace, rows, used

from loranb.models.quantization import compute_dtype
from loranb.evaluate.scores import row_logits
from loranb.spectra.factors import read_factors
from loranb.core.recipe import Recipe
from loranb.spectra.spectra import Spectra
from loranb.train.run import Run

CASES = [("nf4", "bfloat16"), ("nf4", "float16"), ("none", "auto"), ("int8", "auto")] if CUDA else [("nf4", "auto")]
SIZE = dict(max_steps=12, max_length=256, per_device_train_batch_size=8, data=rows(256, 32, 4)) if CUDA else \
    dict(max_steps=7, max_length=64, per_device_train_batch_size=2, data=rows(24, 6, 2))
SLACK = 64*2**20  # Bytes that a context, kernels and handles may keep once a run has been there


def policy():
    "What `auto` computes in"
    found = {"T4": str(compute_dtype("cuda", capability=(7, 5))), "A100": str(compute_dtype("cuda", capability=(8, 0)))}
    right = found == {"T4": "torch.float16", "A100": "torch.bfloat16"}
    return dict(ok=right, **found, here=str(compute_dtype("cuda" if CUDA else "cpu")))


def fingerprint(run):
    return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()[:16]


def interrupted(recipe, folder):
    "A run that is stopped after five steps and goes on, and whether it obeyed"
    run = Run(recipe, folder)
    run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == 5 else None).train()
    obeyed = (run.state, run.steps) == ("stopped", 5)
    run.subscribers.clear()
    return run.resume(), obeyed


def true_error(model, spectra):
    "The largest error of the singular values against QR and SVD in float64 on the CPU, relative to the largest of each module"
    worst = 0.
    for f, s in zip(read_factors(model), spectra.sigma):
        R_B, R_A = (torch.linalg.qr(X.detach().cpu().double(), mode="r").R for X in (f.B, f.A.mT))
        true = torch.linalg.svdvals(f.scaling*R_B @ R_A.mT)
        worst = max(worst, float((true - torch.tensor(s)).abs().max())/max(float(s[0]), 1e-30))
    return worst


def timed_spectra(model):
    "The spectra of a live model, the second time, and the milliseconds"
    Spectra.of(model)
    began = time.perf_counter()
    return Spectra.of(model), 1e3*(time.perf_counter() - began)


def case(root, quant, dtype):
    "Everything that a run promises, in one type"
    before, folder = used(), root/f"first-{quant}-{dtype}"
    recipe = Recipe(model=str(base_folder(root)), quant=quant, dtype=dtype, r=16, gradient_accumulation_steps=1,
        eval_steps=0, spectra_steps=4, test_size=0, save_steps=0, gradient_checkpointing=CUDA, **SIZE)
    fresh()
    whole = Run(recipe, folder/"whole").train()
    peak, events, bits = most(), whole.of_type("step"), fingerprint(whole)
    trained = {p.dtype for p in whole.model.parameters() if p.requires_grad}
    spectra, ms = timed_spectra(whole.model)
    stated, measured = float(spectra.error.max()), true_error(whole.model, spectra)
    row = whole._data.train[0]
    said, checks = row_logits(whole.model, row), list(whole.checks)
    whole.release()
    again = float((row_logits(whole.model, row) - said).abs().max())
    whole.release()
    resumed, obeyed = interrupted(recipe, folder/"stopped")
    gap = max(abs(x - y).max()/max(x[0], 1e-30) for x, y in zip(spectra.sigma, Spectra.of(resumed.adapter.path).sigma))
    same, computed = (fingerprint(resumed) == bits,
        str(resumed.model.get_base_model().loranb_dtype).removeprefix("torch."))
    resumed.release()
    whole = resumed = None
    after = used()
    right = {"adapters in float32": trained == {torch.float32},
        "loss is finite": all(abs(e["loss"]) < 1e4 for e in events),
        "loss fell": events[-1]["loss"] < events[0]["loss"], "stop obeyed": obeyed,
        "proof": all(ok for ok, _ in checks), "reloads equal": again == 0,
        "spectra within their bound": measured <= max(stated, 1e-6), "memory given back": None if before is None
        else after - before <= SLACK}
    return dict(ok=all(v is not False for v in right.values()), wrong=[k for k, v in right.items() if v is False],
        computed_in=computed, resumed_to_the_same_bits=same, resumed_gap=float(gap), modules=len(spectra),
        spectra_ms=round(ms, 1), spectra_error=measured, tokens_a_second=pace(events), peak_gb=gb(peak),
        kept_mb=None if before is None else round((after - before)/1e6, 1))


def checks(root):
    yield "dtype='auto'", policy
    for quant, dtype in CASES: yield f"{quant}, {dtype}", partial(case, root, quant, dtype)
