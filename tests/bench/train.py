"""How fast a run trains beside TRL and Unsloth: the same model, rows, order and first adapter, each run a process of its own

    python tests/bench/train.py [--rounds 3] [--steps 20] [--only NAME]

Each round runs every tool once, in another order, and gives one ratio: loranb's seconds over those of the faster of the
two others. Times are from the end of one step to the end of the next, as a reader of the clock would take them, without
the first. `floor` is the products of matrices alone that a step cannot do without (attention's are left out), measured
in the same round. The losses are compared step by step. The model is a Llama of 24.9 M random weights, 8 layers of 384.

A case in bfloat16 is left out where the machine only emulates it, and TRL, which does not look, is told what there is.

TRL runs in the environment of this script, and Unsloth in `.venv-unsloth` beside it, which is made where it is missing.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNSLOTH = ROOT/".venv-unsloth"
LORA = dict(r=16, lora_alpha=32, lora_dropout=0)
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPE = dict(vocab_size=16000, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
    num_key_value_heads=6, tie_word_embeddings=True)
SAME = dict(learning_rate=2e-4, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0., max_grad_norm=1., seed=42)

# what is stored, computed ("auto": as the tool decides), learned, how many rows at once, measured by loranb, and the limit
CASES = {
    "float32, all learned": dict(stored="float32", dtype="float32", learned="all", rows=4, limit=.95),
    "float32, a third learned": dict(stored="float32", dtype="float32", learned="third", rows=4, limit=.75),
    "bfloat16, all learned": dict(stored="bfloat16", dtype="bfloat16", learned="all", rows=4, limit=.95),
    "bfloat16, a third learned": dict(stored="bfloat16", dtype="bfloat16", learned="third", rows=4, limit=.75),
    "as each comes": dict(stored="bfloat16", dtype="auto", learned="third", rows=4, spectra=-1, limit=.80),
    "short rows": dict(stored="bfloat16", dtype="auto", learned="short", rows=16, spectra=-1, limit=.50),
}


class Clock:
    "When steps end, and their losses"
    def __init__(self): self.ends, self.losses = [], []
    def end(self, loss): self.ends.append(time.perf_counter()); self.losses.append(float(loss))

    def told(self, tokens, started):
        steps = [b - a for a, b in zip(self.ends, self.ends[1:])]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
        print(json.dumps(dict(step=statistics.median(steps), whole=self.ends[-1] - self.ends[0], tokens=tokens,
            first=self.ends[0] - started, losses=self.losses, peak=peak)))


def base(folder, stored):
    "A Llama of random weights with petit's tokenizer"
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from loranb.models import petit
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).to(getattr(torch, stored)).save_pretrained(folder/"base")
    AutoTokenizer.from_pretrained(petit.path()).save_pretrained(folder/"base")


def rows(folder, learned, n):
    "Prompts and completions: of 500 tokens, or as petit's task has them"
    from transformers import AutoTokenizer
    from loranb.models import petit
    tok, found = AutoTokenizer.from_pretrained(folder/"base"), petit.task("translate", "train")
    if learned == "short": return [dict(messages=o["messages"]) for o in found[:n]]
    texts = [" ".join(m["content"] for m in o["messages"]) for o in found]
    ids = [tok(" ".join(texts[i*8:i*8 + 90])).input_ids[:500] for i in range(n)]
    return [dict(prompt=tok.decode(o[:333]), completion=" " + tok.decode(o[333:])) for o in ids]


def recipe(case, folder, steps):
    "What loranb is asked to do"
    from loranb import Recipe
    packed = case["learned"] == "short"
    return Recipe(**SAME, **LORA, model=str(folder/"base"), data=str(folder/"rows.jsonl"), test_size=0, max_length=512,
        dtype=case["dtype"], train_on="all" if case["learned"] == "all" else "assistant", packing=packed,
        per_device_train_batch_size=4 if packed else case["rows"], gradient_accumulation_steps=1, max_steps=steps,
        gradient_checkpointing=False, eval_steps=0, save_steps=0, spectra_steps=case.get("spectra", 0),
        acknowledged=["duplicates"])


def prepare(case, folder, steps):
    "The base, the rows as text and as tokens, and the adapter that everybody begins with"
    from loranb.data.encoding import prepare as encode
    from loranb.models.loading import load_base
    from loranb.models.lora import attach
    base(folder, case["stored"])
    # packed rows hold several, so that a run of as many steps sees more of them
    n = steps*case["rows"]*(8 if case["learned"] == "short" else 1)
    (folder/"rows.jsonl").write_text("\n".join(map(json.dumps, rows(folder, case["learned"], n))))
    r = recipe(case, folder, steps)
    model, tok = load_base(r)
    encode(r.replace(packing=False), tok).train.dataset.to_parquet(folder/"tokens.parquet")
    attach(model, r).save_pretrained(folder/"adapter")


def computed(case):
    "The type that a case computes in; left to the tool, what the hardware has units for"
    import torch
    from loranb.models.quantization import compute_dtype
    if case["dtype"] != "auto": return getattr(torch, case["dtype"])
    return compute_dtype("cpu", getattr(torch, case["stored"]))


def is_emulated(case): return case["dtype"] == "bfloat16" != str(computed(dict(case, dtype="auto"))).removeprefix("torch.")


def run_loranb(case, folder, steps, started):
    from loranb import Run
    clock = Clock()
    run = Run(recipe(case, folder, steps), folder/f"run-{time.time_ns()}")
    run.on(lambda e: clock.end(e["loss"]) if e["type"] == "step" else None).train()
    clock.told(sum(e["tokens"] for e in run.of_type("step")[1:]), started)


def run_peer(case, folder, steps, started, load):
    "TRL's trainer on the model that `load` gives, Unsloth's or TRL's own"
    model, kw = load()  # first: Unsloth wants to be imported before TRL
    import torch
    from datasets import load_dataset
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer
    clock = Clock()

    class Timed(SFTTrainer):
        def training_step(self, *args, **kw):
            self.loss = super().training_step(*args, **kw)
            return self.loss
        def log(self, logs, *args, **kw):
            if "loss" in logs: clock.end(self.loss)

    tokens = load_dataset("parquet", data_files=str(folder/"tokens.parquet"), split="train")
    some = {} if case["dtype"] == "auto" else dict(bf16=case["dtype"] == "bfloat16")
    args = SFTConfig(**SAME, **some, output_dir=str(folder/f"peer-{time.time_ns()}"), max_steps=steps, max_length=512,
        per_device_train_batch_size=case["rows"], gradient_accumulation_steps=1, gradient_checkpointing=False,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = Timed(model=model, args=args, train_dataset=tokens,
        processing_class=AutoTokenizer.from_pretrained(folder/"base"), **kw)
    # TRL rounds A and B to bfloat16; the comparison is of the same numbers
    for p in trainer.model.parameters():
        if p.requires_grad: p.data = p.data.float()
    set_peft_model_state_dict(trainer.model, load_file(folder/"adapter"/"adapter_model.safetensors"))
    trainer.train()
    seen = len(tokens[0]["input_ids"])*case["rows"]*(steps - 1)
    if case["learned"] == "short":
        order = list(trainer.get_train_dataloader().batch_sampler)
        seen = sum(len(tokens[i]["input_ids"]) for batch in order[1:steps] for i in batch)
    clock.told(seen, started)


def run_trl(case, folder, steps, started):
    dtype = computed(case)
    def load():
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype)
        model = AutoModelForCausalLM.from_pretrained(folder/"base", dtype=dtype, quantization_config=nf4)
        return model, dict(peft_config=LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
    run_peer(dict(case, dtype=str(dtype).removeprefix("torch.")), folder, steps, started, load)


def run_unsloth(case, folder, steps, started):
    def load():
        from unsloth import FastLanguageModel
        import torch
        dtype = None if case["dtype"] == "auto" else getattr(torch, case["dtype"])
        model, _ = FastLanguageModel.from_pretrained(str(folder/"base"), max_seq_length=512, load_in_4bit=True,
            dtype=dtype)
        return FastLanguageModel.get_peft_model(model, **LORA, target_modules=list(LAYERS), bias="none",
            use_gradient_checkpointing=False, random_state=42), {}
    run_peer(case, folder, steps, started, load)


def run_floor(case, folder, steps, started):
    "A step's products with the weights alone: forwards, and by the inputs; the head's at the learned positions"
    import torch
    dtype = computed(case)
    h, m, tokens = SHAPE["hidden_size"], SHAPE["intermediate_size"], 500*case["rows"]
    learned = tokens if case["learned"] == "all" else tokens//3
    shapes = [(tokens, h, h)]*4 + [(tokens, h, m)]*2 + [(tokens, m, h)]
    work = [(n, torch.randn(k, i, dtype=dtype), torch.randn(o, i, dtype=dtype), torch.randn(k, o, dtype=dtype))
        for n, (k, i, o) in [*((SHAPE["num_hidden_layers"], o) for o in shapes), (1, (learned, h, SHAPE["vocab_size"]))]]
    clock = Clock()
    for _ in range(steps):
        for n, X, W, G in work:
            for _ in range(n): X @ W.T, G @ W
        clock.end(0)
    clock.told(0, started)


TOOLS = dict(loranb=run_loranb, trl=run_trl, unsloth=run_unsloth, floor=run_floor)


def environment():
    "The Python that has Unsloth, in an environment that is made once"
    python = UNSLOTH/"bin"/"python"
    if not (UNSLOTH/"ready").exists():
        print("Installing Unsloth into .venv-unsloth (once, some minutes)", file=sys.stderr)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        torch = next(o for o in (ROOT/"constraints.txt").read_text().split() if o.startswith("torch=="))
        (only := Path(tempfile.mkstemp()[1])).write_text(torch)
        # torchvision may come for another build of torch, and nothing here looks at a picture
        without = [python, "-m", "pip", "uninstall", "-qq", "-y", "torchvision"]
        for command in ([sys.executable, "-m", "venv", UNSLOTH], [*pip, torch], [*pip, "-c", only, "unsloth==2026.10.9"],
                without):
            subprocess.run(command, check=True)
        (UNSLOTH/"ready").touch()
    return python


def ask(tool, name, folder, steps):
    "What one run of a tool says, in a process of its own"
    python = environment() if tool == "unsloth" else sys.executable
    env = dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(folder/"cache"), TOKENIZERS_PARALLELISM="false")
    command = [python, __file__, "--one", tool, "--case", name, "--folder", folder, "--steps", steps]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env, cwd=folder)
    if done.returncode: raise SystemExit(f"{tool} failed on {name}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def farthest(ours, others):
    "The largest difference of two runs' losses, by the tool that they are compared with"
    return {k: max(abs(a - b) for a, b in zip(ours, o)) for k, o in others.items()}


def seconds(case, found):
    "What is compared: the median step, or on short rows the seconds of a thousand tokens"
    if case["learned"] != "short": return {k: o["step"] for k, o in found.items()}
    return {k: 1e3*o["whole"]/o["tokens"] for k, o in found.items() if o["tokens"]}


def compare(name, rounds, steps):
    case, ratios, kept = CASES[name], [], []
    tools = [o for o in TOOLS if o != "floor" or case["learned"] != "short"]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ask("prepare", name, folder, steps)
        for i in range(rounds):
            order = tools[i%len(tools):] + tools[:i%len(tools)]
            found = {tool: ask(tool, name, folder, steps) for tool in order}
            took = seconds(case, found)
            ratios.append(took["loranb"]/min(took["trl"], took["unsloth"]))
            kept.append((found, took))
    median = lambda tool, what: statistics.median(found[tool][what] for found, _ in kept)
    unit = "ms a thousand tokens" if case["learned"] == "short" else "ms a step"
    print(f"{name}: {statistics.median(ratios):.2f} of the faster (limit {case['limit']:.2f}); rounds "
        f"{', '.join(f'{o:.2f}' for o in ratios)}; load {os.getloadavg()[0]:.1f}")
    for tool in tools:
        if tool not in kept[0][1]: continue
        took = 1e3*statistics.median(t[tool] for _, t in kept)
        rest = f"first step after {median(tool, 'first'):5.1f} s, {median(tool, 'peak'):5.0f} MB at most"
        print(f"  {tool:8} {took:7.0f} {unit}" + ("" if tool == "floor" else f"; {rest}"))
    if case["learned"] != "short":
        off = farthest(kept[0][0]["loranb"]["losses"], {k: kept[0][0][k]["losses"] for k in ("trl", "unsloth")})
        print("  losses differ by at most", ", ".join(f"{v:.1e} from {k}" for k, v in off.items()), flush=True)


if __name__ == "__main__":
    started = time.perf_counter()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3); p.add_argument("--steps", type=int, default=20)
    p.add_argument("--only", choices=CASES, action="append")
    p.add_argument("--one"); p.add_argument("--case"); p.add_argument("--folder", type=Path)
    a = p.parse_args()
    if a.one == "prepare": prepare(CASES[a.case], a.folder, a.steps); print("{}")
    elif a.one: TOOLS[a.one](CASES[a.case], a.folder, a.steps, started)
    else:
        for name in a.only or CASES:
            if is_emulated(CASES[name]): print(f"{name}: left out, this machine only emulates bfloat16")
            else: compare(name, a.rounds, a.steps)
