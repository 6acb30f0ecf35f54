"Stage `giants`: a model of 65 billion parameters in NF4, and the singular values of a 7B model's adapters while they are on the card"
import time
from functools import partial

import memory
import torch
from bases import CUDA, config_of, gb, make
from first_light import true_error, timed_spectra

from loranb.models.lora import attach
from loranb.memory.gpus import this_gpu
from loranb.core.recipe import Recipe


def trained_65b(root):
    "Two steps of QLoRA on a model of LLaMA-65B's shape, made layer by layer on the card; its peak against the plan"
    c = memory.case("65B", "nf4", 512, 1, r=64, optim="paged_adamw_32bit")
    if not memory.fits(c, root): return dict(ok=True, left_out=f"the plan needs more than the {this_gpu()} has")
    began = time.perf_counter()
    row = memory.check(c, root)
    return dict(row, predicted_gb=gb(row["predicted"]["allocated"]), seconds_in_all=round(time.perf_counter() - began,
        1))


def spectra_of_7b(root):
    "Singular values of the 224 updates of a 7B Llama at r=16, live, with their error"
    config_of("7B").save_pretrained(root/"config-7B")
    recipe = Recipe(model=str(root/"config-7B"), quant="nf4", r=16, gradient_checkpointing=False)
    model = attach(make(config_of("7B"), "nf4", torch.bfloat16 if CUDA else torch.float32), recipe)
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=1e-3)
    spectra, ms = timed_spectra(model)
    stated, measured = float(spectra.error.max()), true_error(model, spectra)
    return dict(ok=measured <= stated <= 1e-3, modules=len(spectra), ms=round(ms, 1), error_stated=stated,
        error_measured=measured)


def checks(root):
    yield "65B in NF4, two steps", partial(trained_65b, root)
    yield "singular values of a 7B's adapters, live", partial(spectra_of_7b, root)
