"Stage `memory`: what the plan predicts beside what is measured, over a grid of shapes with random weights, the smallest first"
import statistics
from functools import partial

import torch
from bases import CUDA, config_of, fresh, make, most, taken

from loranb.models.lora import attach
from loranb.memory.gpus import this_gpu
from loranb.memory.cuda import CONTEXT
from loranb.models.loss import token_loss
from loranb.memory.plans import optimizer_bytes, plan
from loranb.train.measure import drop_frames, bytes_held
from loranb.core.recipe import Recipe

QV = ["q_proj", "v_proj"]


def case(shape, quant, max_length, rows, **kw):
    "A cell of the grid: the shape, and the fields of a recipe"
    plain = dict(gradient_checkpointing=True, optim="auto", r=16, target_modules="all-linear", lora_dropout=0.)
    fields = dict(plain, quant=quant, max_length=max_length, per_device_train_batch_size=rows, **kw)
    evaluate = fields.pop("evaluate", False)
    return dict(shape=shape, fields=fields, evaluate=evaluate, changed={k: v for k, v in kw.items() if k != "evaluate"})


WHOLE = dict(gradient_checkpointing=False)
# No measured peak of these has been published since bitsandbytes keeps 4-bit inputs no more, so they come first.
UNPUBLISHED = [case("1B", "nf4", 1024, 2, **WHOLE), case("1B", "nf4", 1024, 2, lora_dropout=.05, **WHOLE),
    case("1B", "nf4", 1304, 1, r=8, target_modules=QV, **WHOLE), case("3B", "nf4", 1024, 1, lora_dropout=.05, **WHOLE),
    case("8B", "nf4", 1304, 1, r=8, target_modules=QV, lora_dropout=.05, **WHOLE)]
CASES = UNPUBLISHED + [case("1B", q, n, b) for q in ("none", "nf4", "int8") for n, b in ((512, 8), (8192, 1))]
CASES += [case("1B", "none", 512, 4, optim="adamw_torch", **WHOLE), case("1B", "nf4", 1024, 4, optim="adamw_8bit",
    evaluate=True)]
CASES += [case("3B", q, 1024, 4) for q in ("none", "nf4")] + [case("3B", "int8", 512, 2, **WHOLE),
    case("3B", "none", 2048, 2, optim="adamw_torch_fused", evaluate=True)]
CASES += [case("8B", q, 2048, 2) for q in ("nf4", "none", "int8")] + [case("8B", "nf4", 8192, 1)]
CASES += [case("8B", "nf4", 1024, 2, optim="paged_adamw_32bit", evaluate=True, r=64),
    case("8B", "nf4", 1024, 1, **WHOLE)]
CASES += [case("32B", "nf4", 512, 1), case("32B", "nf4", 2048, 1)]
TINY_CASES = [case("1B", "none", 96, 1, **WHOLE), case("1B", "nf4", 96, 1, lora_dropout=.05, **WHOLE),
    case("1B", "int8", 96, 2, **WHOLE), case("1B", "nf4", 96, 1), case("3B", "nf4", 96, 1, r=8, target_modules=QV,
    evaluate=True)]


class Step:
    "What the Trainer does in a step, with accelerate's wrappers"
    def __init__(self, model, recipe, dtype, optim):
        from accelerate import Accelerator
        from transformers import Trainer, TrainingArguments
        cls, kw = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(output_dir="unused", optim=optim,
            use_cpu=not CUDA, report_to="none"))
        self.accelerator = Accelerator(mixed_precision={torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype,
            "no"), cpu=not CUDA)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.model, self.optimizer = self.accelerator.prepare(model.train(), cls(self.trained, **kw))
        self.recipe, self.vocabulary = recipe, model.get_base_model().config.vocab_size

    def batch(self):
        "Rows of one length; the last one ends earlier, so that attention needs a mask, as in real batches"
        shape = self.recipe.per_device_train_batch_size, self.recipe.max_length
        ids = torch.randint(3, self.vocabulary, shape, device=self.model.device)
        d = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.clone())
        if len(ids) > 1: d["attention_mask"][-1, -8:], d["labels"][-1, -8:] = 0, -100
        return d

    def backward(self): self.accelerator.backward(token_loss(self.model, self.batch()))

    def __call__(self):
        self.backward()
        self.accelerator.clip_grad_norm_(self.trained, 1.)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        token_loss(self.model, self.batch()).item()
        self.model.train()


def profiled(step):
    "The most bytes that a CPU's allocator held more than before"
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof: step()
    now = top = 0
    for e in sorted((e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"),
            key=lambda e: e.start_ns()):
        now += e.nbytes()
        top = max(top, now)
    return top


def measured_on_cpu(step):
    "Bytes in use, where torch's profiler can tell"
    base = sum(v for k, v in bytes_held(step.model).items() if k in ("weights", "constants", "adapter"))
    return base + profiled(step.backward)


def measured(step, evaluate):
    "Bytes: in use, taken from the card with its context, and in use during an evaluation"
    for _ in range(2): step()
    fresh()
    for _ in range(2): step()
    found = dict(allocated=most(), **taken()) | {f"at_rest_{k}": v for k,
        v in bytes_held(step.model, step.optimizer.optimizer).items()}
    if not evaluate: return found
    fresh()
    step.evaluate()
    return found | dict(evaluation=most())


def predicted(bill):
    "The same, by the plan"
    t = bill.step
    if not bill.cuda: return dict(allocated=sum(t.kept.values()) + t.step.peak())
    paged = optimizer_bytes(t.trained, bill.optim) if bill.optim.startswith("paged") else 0
    apart = CONTEXT + paged
    return dict(allocated=bill.peak - bill.parts["context"] - paged, reserved=bill.peak - apart,
        evaluation=bill.evaluation - apart)


def planned(c, root, card):
    "The recipe of a cell and its plan"
    folder = root/f"config-{c['shape']}"
    config_of(c["shape"]).save_pretrained(folder)
    recipe = Recipe(model=str(folder), gradient_accumulation_steps=1, dtype="auto" if CUDA else "float32",
        **c["fields"])
    return recipe, plan(recipe, card)


def title(c):
    f = c["fields"]
    changed = ", ".join(f"{k}={v}" for k, v in c["changed"].items())
    return (f"{c['shape']} {f['quant']} {f['per_device_train_batch_size']}x{f['max_length']}"
        + f" ({changed})"*bool(changed))


def run_cell(c, recipe, bill):
    "Measured bytes of a cell; None where memory ended"
    try:
        model = attach(make(config_of(c["shape"]), recipe.quant, bill.dtype), recipe)
        step = Step(model, recipe, bill.dtype, bill.optim)
        found = measured(step, c["evaluate"])
        return found if CUDA else dict(found, allocated=measured_on_cpu(step))
    except torch.OutOfMemoryError as e: drop_frames(e)


def check(c, root):
    "A cell: planned, measured, and how far apart"
    recipe, bill = planned(c, root, this_gpu())
    said, found = predicted(bill), run_cell(c, recipe, bill)
    error = {k: said[k]/found[k] - 1 for k in said if found and found.get(k)}
    return dict(ok=found is not None and abs(error["allocated"]) <= .05, predicted=said, measured=found, error=error)


def fits(c, root):
    "Is the cell small enough for this card?"
    return not CUDA or planned(c, root, this_gpu())[1].peak < .97*this_gpu().usable


def whole(errors):
    "What the grid says"
    if not errors: return dict(ok=False, left_out="no cell was measured")
    median, worst = statistics.median(errors), max(errors)
    return dict(ok=median <= .03 and worst <= .05, cells=len(errors), median=median, worst=worst)


def checks(root):
    errors = []
    def cell(c):
        row = check(c, root)
        if row["error"]: errors.append(abs(row["error"]["allocated"]))
        return row
    for c in CASES if CUDA else TINY_CASES:
        if fits(c, root): yield title(c), partial(cell, c)
    yield "planned against measured", lambda: whole(errors)

