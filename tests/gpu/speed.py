"Stage `speed`: tokens a second against plain TRL and PEFT on the same work, NF4 against 16 bits, packing, checkpointing, and what watching costs"
import statistics, time
from functools import partial
from importlib.util import find_spec

import torch
from bases import CUDA, base_folder, free, fresh, gb, most

from loranb.models.hub import find_model, load_tokenizer, quiet_libraries
from loranb.data.encoding import prepare
from loranb.core.recipe import Recipe
from loranb.train.run import Run

STEPS, SKIP, LENGTH, ROWS = (24, 4, 512, 8) if CUDA else (4, 1, 64, 2)
# every row is cut at the same length and learned whole
LONG = [{"text": f"{i}. " + "The cat sees a small dog. "*(LENGTH//4)} for i in range(STEPS*ROWS)]
SHORT = [{"text": "The cat sees a small dog. "*(1 + i % 12)} for i in range(24*STEPS*ROWS)]


def recipe(root, **kw):
    plain = dict(model=str(base_folder(root)), data=LONG, r=16, max_steps=STEPS, max_length=LENGTH,
        per_device_train_batch_size=ROWS, gradient_accumulation_steps=1, optim="adamw_torch_fused" if CUDA
        else "adamw_torch", gradient_checkpointing=True, eval_steps=0, spectra_steps=0, test_size=0, save_steps=0)
    return Recipe(**{**plain, **kw})


def rate(ends, tokens):
    "Tokens a second from the end of one step to the end of the last"
    return sum(tokens[SKIP + 1:])/(ends[-1] - ends[SKIP])


def ours(recipe, folder):
    "Tokens a second and the peak of a run"
    free(); fresh()
    run, ends = Run(recipe, folder), []
    run.on(lambda e: ends.append(time.perf_counter()) if e["type"] == "step" else None).train()
    found = dict(rate=rate(ends, [e["tokens"] for e in run.of_type("step")]), peak=most())
    run.release()
    return found


def plain_model(recipe):
    "The base and the adapter as the documentation of PEFT makes them"
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    dtype = torch.bfloat16 if CUDA else torch.float32
    bits = {} if recipe.quant == "none" else dict(quantization_config=BitsAndBytesConfig(**recipe.bnb_kwargs(dtype)))
    if CUDA: bits["device_map"] = {"": 0}
    model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=dtype, **bits)
    if bits.get("quantization_config"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.gradient_checkpointing)
    return get_peft_model(model, LoraConfig(r=recipe.r, lora_alpha=recipe.lora_alpha, target_modules="all-linear",
        task_type="CAUSAL_LM"))


def theirs(recipe, folder):
    "The same rows with TRL's trainer"
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer
    free(); fresh()
    tok, ends = load_tokenizer(find_model(recipe)), []
    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kw):
            if CUDA: torch.cuda.synchronize()
            ends.append(time.perf_counter())
    args = SFTConfig(output_dir=str(folder), max_steps=recipe.max_steps,
        per_device_train_batch_size=recipe.per_device_train_batch_size, bf16=CUDA, use_cpu=not CUDA,
        learning_rate=recipe.learning_rate, optim=recipe.optim, gradient_checkpointing=recipe.gradient_checkpointing,
        max_length=None, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        dataset_kwargs=dict(skip_prepare_dataset=True), seed=recipe.seed, data_seed=recipe.seed)
    with quiet_libraries():
        trainer = SFTTrainer(model=plain_model(recipe), args=args, train_dataset=prepare(recipe, tok).train.dataset,
            processing_class=tok, callbacks=[Clock()])
        trainer.train()
    return dict(rate=rate(ends, [ROWS*LENGTH]*STEPS), peak=most())


def interleaved(ways, rounds):
    "Each way in turn, so often; the medians, and the way's own ratios to the first, round by round"
    found = {name: [] for name in ways}
    for i in range(rounds):
        for name, go in ways.items(): found[name].append(go(i))
    first = next(iter(found))
    ratios = {name: statistics.median(a["rate"]/b["rate"] for a, b in zip(found[first], runs)) for name,
        runs in found.items() if name != first}
    return {name: statistics.median(o["rate"] for o in runs) for name, runs in found.items()}, {name: runs[0]["peak"]
        for name, runs in found.items()}, ratios


def against_trl(root, quant, rounds, **kw):
    "loranb and TRL on the same rows"
    r, place = recipe(root, quant=quant, **kw), root/f"speed-{quant}-{'-'.join(map(str, kw.values()))}"
    ways = dict(loranb=lambda i: ours(r, place/f"ours{i}"))
    if find_spec("trl"): ways["trl"] = lambda i: theirs(r, place/f"theirs{i}")
    rates, peaks, ratios = interleaved(ways, rounds)
    ratio = ratios.get("trl")
    no_more = not CUDA or ratio is None or peaks["loranb"] <= peaks["trl"]
    return dict(ok=not CUDA or ratio is None or ratio >= 1 and no_more,
        tokens_a_second={k: round(v) for k, v in rates.items()}, ratio=ratio,
        peak_gb={k: gb(v) for k, v in peaks.items()},
        **({} if "trl" in ways else dict(left_out="TRL is not installed")))


def of_16_bits(nf4, none):
    "How much of the speed of 16 bits is left in NF4"
    ratio = nf4["tokens_a_second"]["loranb"]/none["tokens_a_second"]["loranb"]
    return dict(ok=not CUDA or ratio >= .9, ratio=ratio)


def watched(root, pairs):
    "The same run with the live measurements at their defaults and without"
    plain, seen = recipe(root, quant="nf4"), recipe(root, quant="nf4", spectra_steps=-1)
    ways = dict(without=lambda i: ours(plain, root/f"watch-plain{i}"),
        watched=lambda i: ours(seen, root/f"watch-seen{i}"))
    rates, _, ratios = interleaved(ways, pairs)
    return dict(ok=not CUDA or ratios["watched"] <= 1.02, pairs=pairs,
        tokens_a_second={k: round(v) for k, v in rates.items()}, slower=ratios["watched"] - 1)


def packed(root):
    "Useful tokens a second of short rows, packed and padded"
    short = dict(data=SHORT, quant="nf4", max_steps=STEPS)
    ways = dict(packed=lambda i: ours(recipe(root, packing=True, **short), root/"packed"),
        padded=lambda i: ours(recipe(root, **short), root/"padded"))
    rates, _, ratios = interleaved(ways, 1)
    return dict(ok=not CUDA or ratios["padded"] >= 1, useful_tokens_a_second={k: round(v) for k, v in rates.items()},
        ratio=ratios["padded"])


def checks(root):
    rounds = 2 if CUDA else 1
    seen = {}
    def compared(quant):
        seen[quant] = against_trl(root, quant, rounds)
        return seen[quant]
    yield "NF4, against TRL", lambda: compared("nf4")
    yield "16 bits, against TRL", lambda: compared("none")
    yield "NF4 against 16 bits", lambda: of_16_bits(**seen)
    yield "watching", partial(watched, root, 3 if CUDA else 1)
    if CUDA:
        yield "NF4 without checkpointing, against TRL", partial(against_trl, root, "nf4", 1,
            gradient_checkpointing=False)
    yield "packing short rows", partial(packed, root)
