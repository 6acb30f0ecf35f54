"U^T W V of one NF4 layer through the layer, against unpacking W first; and the top of W's spectrum against a dense SVD. Run: python tests/bench/weight.py"
import argparse, statistics, time

import torch

from loranb.models.hub import quiet_libraries
from loranb.evaluate.base_weights import Weight

def nf4(m, n, dtype):
    import bitsandbytes as bnb
    layer = bnb.nn.Linear4bit(n, m, bias=False, compute_dtype=dtype, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(torch.randn(m, n)*n**-0.5, requires_grad=False, quant_type="nf4")
    return layer.to("cuda" if torch.cuda.is_available() else "cpu")

def timed(f, repeat):
    "Median milliseconds"
    f()
    t = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        if torch.cuda.is_available(): torch.cuda.synchronize()
        t.append(1e3*(time.perf_counter() - start))
    return statistics.median(t)

def main(size, r, repeat):
    from bitsandbytes.functional import dequantize_4bit
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        layer = nf4(size, size, dtype)
        W, (U, V) = Weight(layer), torch.linalg.qr(torch.randn(2, size, r, dtype=torch.float64)).Q
        U32, V32 = U.float().to(layer.weight.device), V.float().to(layer.weight.device)
        unpack = lambda: dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        through, dense = U.mT @ (W @ V), (U32.mT @ (unpack() @ V32)).cpu().double()
        a, b, c = timed(lambda: U.mT @ (W @ V), repeat), timed(lambda: U32.mT @ (unpack() @ V32),
            repeat), timed(unpack, repeat)
        print(f"NF4 {size}x{size}, r={r}, computing in {str(dtype).removeprefix('torch.'):8}: U^T W V through the "
            f"layer {a:.0f} ms; unpacked {b:.0f} ms, of which unpacking {c:.0f} ms; "
            f"ratio unpacked/through {b/a:.2f}; ||U^T W V||_F {float(through.norm()):.4f} and "
            f"{float(dense.norm()):.4f}, entries apart {float((through - dense).norm()/dense.norm()):.1e}, "
            f"stated error {W.error:.1e}; memory for W: 0 against {4*size*size/1e6:.0f} MB")
    layer = nf4(size//2, size//2, torch.float32)
    W, D = Weight(layer), dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().cpu()
    a, b = timed(lambda: W.top(r), 1), timed(lambda: torch.linalg.svdvals(D), 1)
    _, S, _, residual = W.top(r)
    print(f"top {r} of a {size//2}x{size//2} NF4 weight (Gaussian, the hardest): {a:.0f} ms, residual "
        f"{float(residual[0]):.0e} to {float(residual.max()):.0e}, "
        f"values off by {float((S/torch.linalg.svdvals(D)[:r].double() - 1).abs().max()):.0e}; dense singular values "
        f"{b:.0f} ms; ratio {b/a:.1f}")

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--repeat", type=int, default=5)
    with quiet_libraries(): main(**vars(p.parse_args()))
