"""Singular values of B A for all 224 modules of a LLaMA-7B adapter on one core, beside PEFT's dense routes and a dense SVD. Run: python tests/bench/spectra.py"""
import argparse, logging, statistics, tempfile, time, warnings

import live, torch, weight

from loranb.spectra.layouts import Factors
from loranb.spectra.values import singular_vectors
from loranb.spectra.spectra import Spectra

SHAPES = dict(q_proj=(4096, 4096), k_proj=(4096, 4096), v_proj=(4096, 4096), o_proj=(4096, 4096),
    gate_proj=(11008, 4096), up_proj=(11008, 4096), down_proj=(4096, 11008))
LAYERS = 32
MODULES = LAYERS*len(SHAPES)
LIMIT = {16: 50, 64: 400}  # milliseconds
# dense SVDs of 4096x4096 that all modules are worth
WORK = LAYERS*sum(m*n*min(m, n) for m, n in SHAPES.values())/4096**3

def adapter(r, dtype):
    "An adapter after some training: A near its start, B a small walk"
    return [Factors(f"model.layers.{i}.{k}", ((torch.rand(r, n)*2 - 1)/n**.5).to(dtype),
        (1e-3*torch.randn(m, r)).to(dtype), 2.) for i in range(LAYERS) for k, (m, n) in SHAPES.items()]

def timed(f, repeat, warm=True):
    "Least and median milliseconds"
    def once():
        start = time.perf_counter()
        f()
        return 1e3*(time.perf_counter() - start)
    if warm: once()
    t = [once() for _ in range(repeat)]
    return min(t), statistics.median(t)

def in_factors(r, repeat):
    "loranb on a list of factors; gives the least time in float32"
    print(f"r={r}, {MODULES} modules, {r*LAYERS*sum(m + n for m, n in SHAPES.values()):,} numbers")
    for dtype in (torch.bfloat16, torch.float32):
        parts = adapter(r, dtype)
        least, median = timed(lambda: Spectra.of(parts), repeat)
        name, bound = str(dtype).removeprefix("torch."), Spectra.of(parts).error.max()
        print(f"  loranb, {name:8}: {least:7.1f} ms least, {median:.1f} ms median of {repeat}; limit "
            f"{LIMIT.get(r, '-')} ms; relative error <= {bound:.0e}")
    floor, _ = timed(lambda: [(f.A @ f.A.T, f.B.T @ f.B) for f in parts], repeat)
    table, _ = timed(Spectra.of(parts).summary, 3)
    vectors, _ = timed(lambda: [singular_vectors(f.A, f.B) for f in parts[:7]], 2)
    print(f"  floor, the float32 products A A^T and B^T B alone: {floor:.1f} ms; summary, a table of {MODULES} rows: "
        f"{table:.0f} ms; singular vectors of all modules: {vectors*LAYERS/1e3:.1f} s, from one layer")
    return least

def in_peft(r, repeat):
    "The same through a live model (its base without numbers) and a saved folder"
    from accelerate import init_empty_weights
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    with init_empty_weights(): base = LlamaForCausalLM(LlamaConfig())
    model = get_peft_model(base, LoraConfig(r=r, lora_alpha=2*r, target_modules=list(SHAPES)))
    for o in model.modules():
        for side in ("lora_A", "lora_B"):
            if hasattr(o, side):
                getattr(o, side).default.weight = torch.nn.Parameter(1e-2*torch.randn(getattr(o,
                    side).default.weight.shape))
    live, _ = timed(lambda: Spectra.of(model), repeat)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved, _ = timed(lambda: Spectra.of(folder), repeat)
    print(f"  with finding the modules in a live model: {live:.1f} ms; with reading and checking a saved folder: "
        f"{saved:.1f} ms")

def dense(r, ours):
    "What PEFT and a plain SVD take for one 4096x4096 module, and by m n min(m, n) for all of them"
    from peft import LoraConfig, convert_to_lora, get_peft_model
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4096, 4096)),
        LoraConfig(r=r, target_modules=["0"], init_lora_weights=False))
    model.add_adapter("two", LoraConfig(r=r, target_modules=["0"], init_lora_weights=False))
    delta = model.base_model.model[0].get_delta_weight("default").detach()
    ways = {"get_delta_weight, then svdvals": lambda: torch.linalg.svdvals(model.base_model.model[0].get_delta_weight("default").detach()),
            "svd of B A with vectors": lambda: torch.linalg.svd(delta, full_matrices=False),
            f"peft.convert_to_lora(rank={r})": lambda: convert_to_lora(model, rank=r, progressbar=False),
            "add_weighted_adapter(two, 'svd')": lambda: model.add_weighted_adapter(["default", "two"], [1., 1.], "sum", combination_type="svd")}
    print(f"dense routes at r={r}: one 4096x4096 module timed once, {MODULES} modules extrapolated as {WORK:.0f} of "
        "them")
    for name, f in ways.items():
        one, _ = timed(f, 1, warm=False)
        print(f"  {name:32}: {one/1e3:6.1f} s; all modules {one*WORK/6e4:6.0f} min; {one*WORK/ours:,.0f} x loranb")

def main(r, repeat, no_dense):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = {k: in_factors(k, repeat) for k in r}
    in_peft(r[0], max(2, repeat//4))
    for k in r[:0 if no_dense else None]: dense(k, ours[k])

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--r", type=int, nargs="+", default=[16, 64])
    p.add_argument("--repeat", type=int, default=15)
    p.add_argument("--no-dense", action="store_true", help="leave out the dense routes, which take minutes")
    main(**vars(p.parse_args()))
    print("U^T W V on a 4-bit base")
    weight.main(4096, 16, 5)
    print("a run that measures")
    live.main()
