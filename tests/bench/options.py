"""What an option costs in every step, as a ratio to the same step of plain LoRA, the two taken in turns in one process.

    python tests/bench/options.py [--model petit] [--steps 20] [--length 256]

petit or another model, four rows of the given length, r = 16 on all linear layers. The ratios depend on the machine and
the shape; the panel of the rank says `about` for that reason.
"""
import argparse, statistics, sys, time

import torch

from loranb.models.loading import load_base
from loranb.models.lora import attach
from loranb.models.loss import token_loss
from loranb.core.recipe import Recipe


def step(model, optimizer, batch):
    began = time.perf_counter()
    token_loss(model, batch).backward()
    optimizer.step(), optimizer.zero_grad()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter() - began


def main(steps, length, model):
    rows = []
    for quant in ("none", "nf4"):
        made = {}
        for name, kw in (("LoRA", {}), ("DoRA", dict(use_dora=True)), ("LoRA, dropout 0.05", dict(lora_dropout=.05))):
            recipe = Recipe(model=model, quant=quant, gradient_checkpointing=False, **kw)
            lora = attach(load_base(recipe)[0], recipe).train()
            made[name] = lora, torch.optim.AdamW([p for p in lora.parameters() if p.requires_grad]), []
        ids = torch.randint(3, 2000, (4, length), device=lora.device)
        batch = dict(input_ids=ids, labels=ids)
        for i in range(steps + 2):
            for lora, optimizer, times in made.values(): times.append(step(lora, optimizer, batch))
        plain = made["LoRA"][2]
        for name, (_, _, times) in made.items():
            rows.append((quant, name, statistics.median(t/p for t, p in zip(times[2:], plain[2:]))))
        print(f"{quant}: LoRA {min(plain):.2f} s a step", file=sys.stderr)
    print("\n".join(f"{q:5s} {n:20s} {r:.2f} x" for q, n, r in rows))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=20), p.add_argument("--length", type=int,
        default=256), p.add_argument("--model", default="petit")
    main(**vars(p.parse_args()))
