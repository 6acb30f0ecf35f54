"""Singular values of B A for all 224 modules of a LLaMA-7B adapter, r=16, on one core, beside a dense SVD. Run: python tests/bench/spectra.py"""
import argparse, statistics, time

import torch

from loranb.factors import Factors
from loranb.spectra import Spectra

SHAPES = dict(q_proj=(4096, 4096), k_proj=(4096, 4096), v_proj=(4096, 4096), o_proj=(4096, 4096), gate_proj=(11008, 4096), up_proj=(11008, 4096), down_proj=(4096, 11008))
LIMIT = 50  # milliseconds

def adapter(r, dtype):
    "An adapter after some training: A near its start, B a small walk"
    return [Factors(f"model.layers.{i}.{k}", ((torch.rand(r, n)*2 - 1)/n**.5).to(dtype), (1e-3*torch.randn(m, r)).to(dtype), 2.)
            for i in range(32) for k, (m, n) in SHAPES.items()]

def timed(f, repeat):
    "Least and median milliseconds"
    def once():
        start = time.perf_counter()
        f()
        return 1e3*(time.perf_counter() - start)
    once()
    t = [once() for _ in range(repeat)]
    return min(t), statistics.median(t)

def main(r, repeat):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    median = {}
    for dtype in (torch.float32, torch.bfloat16):
        parts = adapter(r, dtype)
        least, median[dtype] = timed(lambda: Spectra.of(parts), repeat)
        name, bound = str(dtype).removeprefix("torch."), Spectra.of(parts).error.max()
        print(f"loranb, {len(parts)} modules, r={r}, {name:8}: {median[dtype]:7.1f} ms median, {least:.1f} ms least of {repeat}; relative error <= {bound:.0e}; limit {LIMIT} ms at r=16")
    parts = adapter(r, torch.float32)
    floor, _ = timed(lambda: [(f.A @ f.A.T, f.B.T @ f.B) for f in parts], repeat)
    print(f"floor, the float32 products A A^T and B^T B alone: {floor:.1f} ms least of {repeat}")
    f = parts[0]
    W = f.B @ f.A
    dense, _ = timed(lambda: torch.linalg.svdvals(W), 1)
    every = dense*sum((m*n*min(m, n)) for m, n in SHAPES.values())*32/4096**3
    print(f"dense SVD (values only) of one 4096x4096 B A, float32: {dense:7.0f} ms; extrapolated by m n min(m, n) to {32*len(SHAPES)} modules: {every/6e4:.0f} min")
    print(f"ratio: {every/median[torch.float32]:.0f} x")

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--repeat", type=int, default=15)
    main(**vars(p.parse_args()))
