"""The loss in tiles against the loss of all logits: seconds of a step and the most memory, taken in turns in one run

The peer is what the model's own forward does with labels, and so the transformers Trainer. Limit: no slower, no larger.
"""
import argparse, os, statistics, time

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch
from loranb.models.loss import token_loss
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM


def peak(fn):
    "Bytes that torch held at most above what it held before"
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p: fn()
    held = most = 0
    for e in p.profiler.kineto_results.events():
        if e.name() == "[memory]": held += e.nbytes(); most = max(most, held)
    return most


def measure(vocabulary, share, pairs, rows=2, tokens=512):
    torch.manual_seed(0)
    shape = dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8,
        vocab_size=vocabulary)
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(r=16, target_modules="all-linear"))
    ids = torch.randint(vocabulary, (rows, tokens))
    batch = dict(input_ids=ids, labels=ids.masked_fill(torch.arange(tokens) < tokens*(1 - share), -100))
    ways = dict(tiles=lambda: token_loss(model, batch).backward(),
        all=lambda: model(**batch, use_cache=False).loss.backward())
    most, seconds = {k: peak(f) for k, f in ways.items()}, {k: [] for k in ways}
    for _ in range(pairs):
        for k, f in ways.items():
            began = time.perf_counter(); f(); seconds[k].append(time.perf_counter() - began)
            model.zero_grad()
    return most, {k: statistics.median(v) for k, v in seconds.items()}


if __name__ == "__main__":
    pairs = argparse.ArgumentParser(description=__doc__)
    pairs.add_argument("--pairs", type=int, default=5)
    pairs = pairs.parse_args().pairs
    print("| vocabulary | learned | s a step, tiles | all logits | ratio (limit 1) | MB at most, tiles | all logits "
        "| ratio (limit 1) |\n" + "|---"*8 + "|")
    for vocabulary in (4096, 32_000, 128_256):
        for share in (1., .25):
            most, s = measure(vocabulary, share, pairs)
            print(f"| {vocabulary:,} | {share:.0%} | {s['tiles']:.2f} | {s['all']:.2f} | {s['tiles']/s['all']:.2f} | "
                f"{most['tiles']/1e6:.0f} | {most['all']/1e6:.0f} | {most['tiles']/most['all']:.2f} |", flush=True)
