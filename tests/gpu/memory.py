"""What the plan predicts beside what a GPU measures, over a grid of shapes with random weights: one command, JSON and a table out.

    python tests/gpu/memory.py [--out FOLDER] [--only TEXT] [--cap GIB]

Asks for an error of at most 5 % at worst and 3 % in the median. `--cap 15` holds the process to the memory of a T4 and checks that what the plan
calls fitting runs and that what it calls not fitting does not. Models are made on the GPU layer by layer, so that one of 32B needs no file and no
host memory. Without a GPU the same code runs on tiny shapes, measured by torch's profiler, which shows that the script works and nothing more.
"""
import argparse, copy, dataclasses, datetime, gc, json, pathlib, statistics, sys, tempfile
from importlib.metadata import version

import torch

from loranb.base import attach, compute_dtype, quiet
from loranb.dryrun import find_layers
from loranb.gpus import GPU, here
from loranb.kernels import CONTEXT
from loranb.loss import token_loss
from loranb.memory import optimizer_bytes, plan
from loranb.peak import clear, held
from loranb.recipe import Recipe
from loranb.shapes import find_config

CUDA = torch.cuda.is_available()
SHAPES = {"1B": "meta-llama/Llama-3.2-1B", "3B": "meta-llama/Llama-3.2-3B", "8B": "meta-llama/Llama-3.1-8B", "32B": "Qwen/Qwen3-32B"}
DEVICE = "cuda" if CUDA else "cpu"


def case(shape, quant, max_length, rows, checkpointing=True, optim="auto", evaluate=False, r=16):
    return dict(shape=shape, quant=quant, max_length=max_length, rows=rows, checkpointing=checkpointing, optim=optim, evaluate=evaluate, r=r)


CASES = [case("1B", q, n, b) for q in ("none", "int8", "nf4") for n, b in ((512, 8), (2048, 4), (8192, 1))]
CASES += [case("1B", "none", 512, 4, False, "adamw_torch"), case("1B", "nf4", 2048, 1, False), case("1B", "nf4", 1024, 4, True, "adamw_8bit", True)]
CASES += [case("3B", q, n, b) for q in ("none", "nf4") for n, b in ((1024, 4), (4096, 1))] + [case("3B", "int8", 512, 2, False), case("3B", "none", 2048, 2, True, "adamw_torch_fused", True)]
CASES += [case("8B", q, n, b) for q in ("none", "int8", "nf4") for n, b in ((512, 4), (2048, 2))]
CASES += [case("8B", "nf4", 8192, 1), case("8B", "nf4", 1024, 1, False), case("8B", "nf4", 1024, 2, True, "paged_adamw_32bit", True, 64)]
CASES += [case("32B", "nf4", n, b) for n, b in ((512, 1), (2048, 1), (1024, 2))]
TINY = [case("1B", q, 96, b, c) for q, b, c in (("none", 1, False), ("int8", 2, False), ("nf4", 1, True))]


def config_of(shape):
    config = find_config(Recipe(model=SHAPES[shape]))
    if not CUDA:
        for k, v in dict(hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=512, pad_token_id=0, bos_token_id=1, eos_token_id=2).items(): setattr(config, k, v)
    return config


def quantized(linear, quant, dtype):
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
    m, n, bias = linear.out_features, linear.in_features, linear.bias is not None
    with torch.device("meta"): new = Linear8bitLt(n, m, bias, has_fp16_weights=False, threshold=6.) if quant == "int8" else Linear4bit(n, m, bias, dtype, True, quant)
    w = linear.weight.data
    new.weight = (Int8Params(w.to(torch.float16).cpu(), requires_grad=False, has_fp16_weights=False) if quant == "int8" else Params4bit(w, requires_grad=False, quant_type=quant, compress_statistics=True, module=new)).to(DEVICE)
    new.bias, new.source_cls = linear.bias, torch.nn.Linear
    return new


def make(config, recipe, dtype):
    "A model with random weights on the device, quantized one layer after the other"
    from transformers import AutoModelForCausalLM
    small, n = copy.deepcopy(config), config.num_hidden_layers
    small.num_hidden_layers = 1
    torch.manual_seed(0)
    with torch.device(DEVICE), quiet(): model = AutoModelForCausalLM.from_config(small, dtype=dtype)
    layers, owner = find_layers(model)
    kind = type(layers[0])
    def ready(layer):
        layer = layer.to(dtype).requires_grad_(False)
        for name, m in list(layer.named_modules()):
            if isinstance(m, torch.nn.Linear) and recipe.quant != "none": layer.set_submodule(name, quantized(m, recipe.quant, dtype))
        return layer
    model.requires_grad_(False)
    for k in ("num_hidden_layers", "layer_types"):
        if hasattr(config, k): setattr(model.config, k, getattr(config, k))
    layers[0] = ready(layers[0])
    for i in range(1, n):
        with torch.device(DEVICE): layer = kind(model.config, i)
        layers.append(ready(layer))
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = "4" in recipe.quant, recipe.quant == "int8"
    model.loranb_dtype = dtype
    return model.eval()


def batch(recipe, vocabulary):
    ids = torch.randint(3, vocabulary, (recipe.per_device_train_batch_size, recipe.max_length), device=DEVICE)
    d = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.clone())
    if len(ids) > 1: d["attention_mask"][-1, -8:] = 0; d["labels"][-1, -8:] = -100
    return d


class Step:
    "What the Trainer does in a step, with accelerate's wrappers"
    def __init__(self, model, recipe, dtype, optim):
        from accelerate import Accelerator
        from transformers import Trainer, TrainingArguments
        cls, kw = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(output_dir="unused", optim=optim, use_cpu=not CUDA, report_to="none"))
        self.accelerator = Accelerator(mixed_precision={torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no"), cpu=not CUDA)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.model, self.optimizer = self.accelerator.prepare(model.train(), cls(self.trained, **kw))
        self.recipe, self.vocabulary = recipe, model.get_base_model().config.vocab_size

    def backward(self): self.accelerator.backward(token_loss(self.model, batch(self.recipe, self.vocabulary)))

    def __call__(self):
        self.backward()
        self.accelerator.clip_grad_norm_(self.trained, 1.)
        self.optimizer.step(); self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        token_loss(self.model, batch(self.recipe, self.vocabulary)).item()
        self.model.train()


def profiled(step):
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof: step()
    now = most = 0
    for e in sorted((e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()): most = max(most, now := now + e.nbytes())
    return most


def measure(step, bill, evaluate):
    "Bytes: in use, taken from the card with its context, and in use during an evaluation"
    if not CUDA:
        step.backward(); step.optimizer.zero_grad()
        base = sum(v for k, v in held(step.model).items() if k in ("weights", "constants", "adapter"))
        return dict(allocated=base + profiled(step.backward))
    for _ in range(2): step()
    gc.collect(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    for _ in range(2): step()
    free, total = torch.cuda.mem_get_info()
    found = dict(allocated=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved(), context=total - free - torch.cuda.memory_reserved())
    found |= {f"at rest {k}": v for k, v in held(step.model, step.optimizer.optimizer).items()}
    if evaluate:
        gc.collect(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
        step.evaluate()
        found["evaluation"] = torch.cuda.max_memory_allocated()
    return found


def predict(bill):
    "The same, by the plan"
    t, parts = bill.step, bill.parts
    base = sum(v for k, v in t.base.alive(len(t.base.events)).items())
    if not CUDA: return dict(allocated=base + t.step.peak())
    paged = optimizer_bytes(t.trained, bill.optim) if bill.optim.startswith("paged") else 0
    return dict(allocated=bill.peak - parts["context"] - paged, reserved=bill.peak - CONTEXT - paged, evaluation=bill.evaluation - CONTEXT - paged)


def one(c, root, cap=None):
    config = config_of(c["shape"])
    folder = root/c["shape"]
    config.save_pretrained(folder)
    card = here()
    if cap: card = dataclasses.replace(card, name=f"{card.name}, {cap} GiB", usable=int(cap*2**30))
    r = Recipe(model=str(folder), quant=c["quant"], r=c["r"], max_length=c["max_length"], per_device_train_batch_size=c["rows"], gradient_accumulation_steps=1,
        gradient_checkpointing=c["checkpointing"], optim=c["optim"], dtype="auto" if CUDA else "float32")
    bill = plan(r, card)
    said, fits = predict(bill), bill.fits() if card else None
    try:
        model = attach(make(config, r, bill.dtype), r)
        found = measure(Step(model, r, bill.dtype, bill.optim), bill, c["evaluate"])
    except torch.OutOfMemoryError as e:
        clear(e)
        found = None
    model = None
    gc.collect()
    if CUDA: torch.cuda.empty_cache()
    row = dict(c, predicted=said, measured=found, fits=fits, ran=found is not None)
    if found: row["error"] = {k: said[k]/found[k] - 1 for k in said if found.get(k)}
    return row


def main(out, only, cap):
    out.mkdir(parents=True, exist_ok=True)
    root, rows = pathlib.Path(tempfile.mkdtemp()), []
    if cap:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((cap*2**30 - CONTEXT)/total)
    for c in CASES if CUDA else TINY:
        name = f"{c['shape']} {c['quant']} {c['rows']}x{c['max_length']}{'' if c['checkpointing'] else ' no checkpointing'} {c['optim']} r={c['r']}"
        if only and only not in name: continue
        if not cap and CUDA and not plan_fits(c, root): continue
        rows.append(dict(name=name, **one(c, root, cap)))
        r = rows[-1]
        print(name, {k: f"{v:+.2%}" for k, v in r.get("error", {}).items()} or "out of memory", "" if r["fits"] is None else f"plan: {'fits' if r['fits'] else 'does not fit'}", file=sys.stderr, flush=True)
    errors = [abs(r["error"]["allocated"]) for r in rows if r.get("error")]
    result = dict(date=str(datetime.date.today()), device=torch.cuda.get_device_name() if CUDA else "CPU", cap=cap, versions={n: version(n) for n in ("torch", "transformers", "peft", "bitsandbytes", "accelerate")},
        median=statistics.median(errors) if errors else None, worst=max(errors, default=None), cases=rows)
    name = f"memory{'' if CUDA else '_cpu'}{f'_cap{cap:g}' if cap else ''}"
    (out/f"{name}.json").write_text(json.dumps(result, indent=1))
    mb, cell = lambda v: f"{v/2**20:,.0f}" if v else "–", lambda r, k: f"{r['error'][k]:+.1%}" if k in r.get("error", {}) else "–"
    table = [f"{result['date']}, {result['device']}{f', held to {cap:g} GiB' if cap else ''}, " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()), "",
        "| case | predicted MiB | measured MiB | in use | taken | evaluation | plan says | it ran |", "|---"*8 + "|"]
    table += [f"| {r['name']} | {mb(r['predicted']['allocated'])} | {mb(r['measured'] and r['measured']['allocated'])} | {cell(r, 'allocated')} | {cell(r, 'reserved')} | {cell(r, 'evaluation')} | {r['fits']} | {r['ran']} |" for r in rows]
    if errors: table += ["", f"In use: median error {result['median']:.2%}, worst {result['worst']:.2%}, {len(errors)} cases."]
    (out/f"{name}.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    if cap:
        wrong = [r["name"] for r in rows if r["fits"] != r["ran"]]
        return f"the plan was wrong about {wrong}" if wrong else 0
    return f"median {result['median']:.2%}, worst {result['worst']:.2%}: more than 3 % and 5 %" if not errors or result["worst"] > .05 or result["median"] > .03 else 0


def plan_fits(c, root):
    "Leave out what this card cannot hold"
    r = Recipe(model=SHAPES[c["shape"]], quant=c["quant"], r=c["r"], max_length=c["max_length"], per_device_train_batch_size=c["rows"], gradient_checkpointing=c["checkpointing"], optim=c["optim"])
    return plan(r, here()).peak < .97*here().usable


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent/"results")
    p.add_argument("--only", default="", help="only cases whose name has this text")
    p.add_argument("--cap", type=float, help="hold the process to so many GiB and check what the plan says of fitting")
    a = p.parse_args()
    raise SystemExit(main(a.out, a.only, a.cap))
