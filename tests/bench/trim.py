"""Trimming one 4096x4096 module, r=16, beside PEFT's dense conversion; readings of 224 modules; what the watch costs a step. CPU time, one thread. Run: python tests/bench/trim.py"""
import argparse, statistics, time

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.conversion import _convert_module_to_lora

from loranb.spectra.layouts import Factors
from loranb.spectra.factors import read_factors
from loranb.evaluate.directions import Functional
from loranb.evaluate.watch import Watch
from loranb.spectra.spectra import Spectra
from loranb.adapters.choosing import choose_directions
from loranb.adapters.trimming import keep_directions, residual_bounds

def timed(f, repeat):
    "Least and median milliseconds of CPU time on one thread"
    def once():
        start = time.process_time()
        f()
        return 1e3*(time.process_time() - start)
    once()
    t = [once() for _ in range(repeat)]
    return min(t), statistics.median(t)

def against_peft(d, r, repeat):
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(d, d, bias=False)),
        LoraConfig(r=r, lora_alpha=2*r, target_modules=["0"]))
    layer = model.base_model.model[0]
    layer.lora_B["default"].weight.data = 1e-3*torch.randn(d, r)*torch.logspace(0, -1, r)
    part, keep = read_factors(model)[0], np.arange(r) < r//2
    def ours():
        choose_directions(Spectra.of([part]), energy=0.99)
        return keep_directions(part, keep)
    least, median = timed(ours, repeat)
    certificate, _ = timed(lambda: residual_bounds(part, ours()), repeat)
    start = time.process_time()
    with torch.no_grad(): A, B, k = _convert_module_to_lora(layer, rank=r//2)
    dense = 1e3*(time.process_time() - start)
    small, whole = ours(), part.delta().float()
    off = (B.detach() @ A.detach() - small.delta().float()).norm()/whole.norm()
    print(f"one {d}x{d} module, r={r} -> {k}: loranb {median:.1f} ms median, {least:.1f} ms least of {repeat} (with "
        f"its certificate {certificate:.1f} ms); PEFT, dense: {dense:.0f} ms")
    print(f"ratio: {dense/median:.0f} x to aim at 1000 x; difference of the results, relative: {off:.1e}, to be at "
        "most 1e-5")

def readings(r, repeat, batches=1):
    rng = np.random.default_rng(0)
    def one(i, m, n):
        A, B, h = rng.normal(size=(r, 3*r)), rng.normal(size=(3*r, r)), rng.normal(size=(batches, 4*r, r))
        return dict(name=f"{i}", m=m, n=n, r=r, scaling=2., GA=A @ A.T, GB=B.T @ B, H=h.swapaxes(1, 2) @ h,
            rows=rng.uniform(1, 2, (batches*4, 4)), tokens=np.full(batches, 4*r), K=rng.normal(size=(batches, r, r)))
    sums = [one(i, 4096, 4096) for i in range(224)]
    print(f"readings of 224 modules, r={r}: {timed(lambda: Functional(sums), repeat)[1]:.0f} ms median of {repeat}")

def watching(repeat):
    from transformers import LlamaConfig, LlamaForCausalLM
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1376,
        num_hidden_layers=6, num_attention_heads=8)), LoraConfig(r=16, target_modules="all-linear"))
    ids = torch.randint(0, 8000, (4, 256))
    batch, watch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids), Watch(model)
    def step(): model(**batch).loss.backward(); model.zero_grad()
    def watched():
        watch.reset()
        with watch:
            model(**batch).loss.backward()
            watch.take_gradients()
        watch.sums()
        model.zero_grad()
    (plain, _), (seen, _) = timed(step, repeat), timed(watched, repeat)
    print(f"a step of a {sum(p.numel() for p in model.parameters())/1e6:.0f} M Llama, 4 x 256, {len(watch.layers)} "
        f"modules: {plain:.0f} ms, watched {seen:.0f} ms ({100*(seen/plain - 1):+.0f} %); one step in ten: "
        f"{10*(seen/plain - 1):+.1f} %")

def main(d, r, repeat):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    readings(r, repeat)
    watching(max(3, repeat//3))
    against_peft(d, r, repeat)

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--d", type=int, default=4096)
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--repeat", type=int, default=9)
    main(**vars(p.parse_args()))
