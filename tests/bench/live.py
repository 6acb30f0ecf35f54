"""What it costs to measure an adapter while it trains: steps with a meter and without one, taken in turns in one run

Prints a table. `every step` is the price of a measurement in each step, `default pace` what is left of it when the meter
chooses its steps; the limit is 2 % of the time of a step.
"""
import argparse, gc, os
import statistics
import time

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))
import torch
from loranb.train.meter import Meter
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

LIMIT = .02
SIZES = {"petit's shape": (dict(hidden_size=256, intermediate_size=640, num_hidden_layers=4, num_attention_heads=4,
    vocab_size=2560), (16, 40), 60), "25 M Llama": (dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=6,
    num_attention_heads=8, vocab_size=4096), (4, 512), 12)}


def trained(shape, batch, r=8):
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(r=r, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    def step(meter=None, n=1):
        began = time.perf_counter()
        if meter: meter.begin(n)
        ids = torch.randint(shape["vocab_size"], batch)
        model(input_ids=ids, labels=ids).loss.backward()
        if meter: meter.gradients()
        optimizer.step()
        optimizer.zero_grad()
        if meter: meter.end(n, time.perf_counter() - began)
        if meter: meter.frames_ready()
        return time.perf_counter() - began
    return model, step


def measure(shape, batch, pairs):
    model, step = trained(shape, batch)
    meter = Meter(model, every=1)
    for _ in range(3): step(), step(meter)
    without, with_ = zip(*[(step(), step(meter)) for _ in range(pairs)])
    meter.frames_ready(wait=True)
    auto, n, began = Meter(model), 0, time.perf_counter()
    while n < pairs*4: n += 1; step(auto, n)
    auto.frames_ready(wait=True)
    median = statistics.median(without)
    return median, statistics.median(b - a for a,
        b in zip(without, with_))/median, auto.measured, n, auto.spent/auto.elapsed, len(meter.start)


def main(only=None):
    print(f"{'':16} {'modules':>8} {'step s':>8} {'every step':>11} {'default pace':>13}   {'frames':>12}   limit "
        f"{100*LIMIT:.0f} %")
    for name, (shape, batch, pairs) in SIZES.items():
        if only and name != only: continue
        second, every, frames, n, share, modules = measure(shape, batch, pairs)
        print(f"{name:16} {modules:8} {second:8.3f} {100*every:10.1f}% {100*share:12.2f}%   {frames:4} of {n:4}   "
            f"{'holds' if share <= LIMIT*1.25 else 'EXCEEDED'}")
        gc.collect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*SIZES])
    main(**vars(parser.parse_args()))
