"Stage `limits`: memory that ends and is survived, an optimizer in pages where the plain one runs out, a T4 acted out, and the options of LoRA"
import dataclasses
from functools import partial

import memory
import torch
from bases import CUDA, base_folder, free, fresh, gb, held_to, most, pace, rows, used

from loranb.train import observer as training
from loranb.memory.gpus import this_gpu
from loranb.memory.cuda import CONTEXT
from loranb.memory.plans import optimizer_bytes, plan
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

T4 = 15*10**9  # Bytes
SMALL = dict(max_steps=8, max_length=256, per_device_train_batch_size=8) if CUDA else dict(max_steps=3, max_length=96,
    per_device_train_batch_size=2)


def recipe(root, **kw):
    plain = dict(model=str(base_folder(root)), data=rows(64, 8, 2), r=16, quant="nf4", gradient_accumulation_steps=1,
        eval_steps=0, spectra_steps=0, test_size=0, save_steps=0, acknowledged=["answer-cut", "end-not-learned",
        "nothing-learned"], **SMALL)
    return Recipe(**{**plain, **kw})


def trained(recipe, folder):
    "A run from its beginning to its end: what it computed in, what it took, how fast it was"
    free(); fresh()
    run = Run(recipe, folder).train()
    events = run.of_type("step")
    right = {"adapters in float32": {p.dtype for p in run.model.parameters() if p.requires_grad} == {torch.float32},
        "loss is finite": all(abs(e["loss"]) < 1e4 for e in events), "proof": all(ok for ok, _ in run.checks)}
    found = dict(computed_in=str(run.model.get_base_model().loranb_dtype).removeprefix("torch."),
        tokens_a_second=pace(events), peak_gb=gb(most()))
    run.release()
    return dict(found, wrong=[k for k, ok in right.items() if not ok])


def runs_out(recipe, folder, size):
    "The sentence in which a run ends that has no more than so many bytes; None where it does not end"
    whole = training.held_out_loss
    def full(*args, **kw): raise torch.OutOfMemoryError("raised by hand, where no card can be filled")
    if not CUDA: recipe, training.held_out_loss = recipe.replace(eval_steps=1, test_size=4), full
    try:
        with held_to(size): Run(recipe, folder).train().release()
    except RecipeError as e: return str(e)
    finally: training.held_out_loss = whole


def survives(root):
    "A batch that does not fit: one sentence, the memory back, and the next, smaller run works"
    before = used()
    large = dict(per_device_train_batch_size=256, max_length=1024, gradient_checkpointing=False,
        data=[{"prompt": "a "*900, "completion": " b"*100}]*256) if CUDA else {}
    said = runs_out(recipe(root, **large), root/"full", (before or 0) + 4*10**9)
    after = used()
    small = trained(recipe(root, per_device_train_batch_size=1, gradient_accumulation_steps=4), root/"small")
    right = {"one sentence": bool(said) and "out of memory" in said and "\n" not in said,
        "memory back within 1 %": None if before is None else after - before <= .01*this_gpu().usable,
        "the smaller run works": not small["wrong"]}
    return dict(ok=all(v is not False for v in right.values()), wrong=[k for k, v in right.items() if v is False],
        said=said, before_gb=gb(before), after_gb=gb(after))


def paged(root):
    "Half of a plain Adam's states too little: it runs out, and the one whose states lie in pages does not"
    wide = recipe(root, r=256 if CUDA else 8, gradient_checkpointing=True)
    plain, pages = wide.replace(optim="adamw_torch"), wide.replace(optim="paged_adamw_32bit")
    bill = plan(plain)
    size = bill.peak - bill.parts["context"] - optimizer_bytes(bill.step.trained, "adamw_torch")//2
    said = runs_out(plain, root/"plain-adam", size)
    with held_to(size): found = trained(pages, root/"paged-adam")
    ok = bool(said) and "out of memory" in said and not found["wrong"]
    return dict(ok=ok, held_to_gb=gb(size) if CUDA else None, said=said, **found)


def as_t4(root):
    "float16 with a loss scaler in 15 GB; on a CPU the type is float32, since only a card has a scaler"
    with held_to(T4):
        found = trained(recipe(root, dtype="float16" if CUDA else "auto", gradient_checkpointing=True,
            neftune_noise_alpha=5.), root/"t4")
    within = found["peak_gb"] is None or found["peak_gb"]*1e9 <= T4
    return dict(ok=within and not found["wrong"], **found)


def option(root, **kw):
    found = trained(recipe(root, **kw), root/f"option-{'-'.join(kw)}")
    return dict(ok=not found["wrong"], **found)


TIGHT = [memory.case("8B", "nf4", 512, 4), memory.case("3B", "none", 1024, 4),
    memory.case("8B", "none", 512, 1)] if CUDA else memory.TINY_CASES[:1]


def fits_as_planned(root, c, gib=15):
    "Under a cap: what the plan calls fitting runs, and what it calls not fitting does not"
    card = this_gpu() and dataclasses.replace(this_gpu(), name=f"{gib} GiB", usable=gib*2**30)
    r, bill = memory.planned(c, root, card)
    said = bill.fits() if card else None
    with held_to(gib*2**30 - CONTEXT): ran = memory.run_cell(c, r, bill) is not None
    return dict(ok=said is None or said == ran, plan_says_it_fits=said, it_ran=ran if CUDA else None)


def checks(root):
    yield "out of memory", partial(survives, root)
    yield "paged_adamw_32bit where adamw_torch runs out", partial(paged, root)
    yield "as a T4: float16, 15 GB", partial(as_t4, root)
    for c in TIGHT: yield f"{memory.title(c)} in 15 GiB", partial(fits_as_planned, root, c)
    yield "DoRA", partial(option, root, use_dora=True)
    if CUDA: yield "LoRA+", partial(option, root, loraplus_lr_ratio=8.)
