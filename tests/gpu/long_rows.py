"Stage `long`: long rows against the plan, and layers that are compiled, which takes longest and comes last"
import time
from functools import partial

import memory
import torch
from bases import CUDA, config_of, make

from loranb.models.lora import attach
from loranb.memory.rehearsal import find_layers
from loranb.core.recipe import Recipe


def steps_of(step, n):
    "Seconds of each of some steps"
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        step()
        if CUDA: torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds


def compiled(root, shape="1B", length=512, rows=8):
    "Steps of a 1B model in NF4, plain and with each of its layers compiled for any length"
    config = config_of(shape)
    if not CUDA: length, rows, config.num_hidden_layers = 64, 2, 2
    config.save_pretrained(root/"config-compiled")
    recipe = Recipe(model=str(root/"config-compiled"), quant="nf4", r=16, max_length=length,
        per_device_train_batch_size=rows, gradient_checkpointing=False)
    dtype = torch.bfloat16 if CUDA else torch.float32
    model = attach(make(config, "nf4", dtype), recipe)
    step = memory.Step(model, recipe, dtype, "adamw_torch_fused" if CUDA else "adamw_torch")
    plain = min(steps_of(step, 6)[2:])
    for layer in find_layers(model.get_base_model())[0]:
        layer.compile(dynamic=True, backend="inductor" if CUDA else "aot_eager")
    first, *rest = steps_of(step, 6)
    return dict(ok=True, seconds_of_a_step=dict(plain=plain, compiled=min(rest[1:])), ratio=min(rest[1:])/plain,
        seconds_to_compile=round(first - plain, 1))


def checks(root):
    c = memory.case("8B", "nf4", 16384 if CUDA else 192, 1)
    if memory.fits(c, root): yield memory.title(c), partial(memory.check, c, root)
    yield "compiled layers", partial(compiled, root)
