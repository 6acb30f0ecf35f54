"""How long a plan takes, the first time, again, and when a control moves; beside `accelerate estimate-memory` on the same configurations. Run: python tests/bench/memory.py

Limits: 2 s for the first plan of anything up to 70B, 150 ms when a control moves. Each first plan is made in a process of its own, its imports not counted.
"""
import argparse, json, pathlib, subprocess, sys, tempfile, time

MODELS = {"1B": "meta-llama/Llama-3.2-1B", "8B": "meta-llama/Llama-3.1-8B", "70B": "meta-llama/Llama-3.1-70B",
    "MoE": "Qwen/Qwen3-30B-A3B"}
MOVES = dict(nothing={}, learning_rate=dict(learning_rate=1e-3), optimizer=dict(optim="adamw_8bit"),
    alpha=dict(lora_alpha=64), length=dict(max_length=1536), batch=dict(per_device_train_batch_size=3),
    rank=dict(r=32), checkpointing=dict(gradient_checkpointing=False), quantization=dict(quant="none"))


def clock(f):
    wall, own = time.perf_counter(), time.process_time()
    value = f()
    return value, 1e3*(time.perf_counter() - wall), 1e3*(time.process_time() - own)


def ours(name):
    import bitsandbytes, peft.tuners.lora.bnb, accelerate.utils.operations, torch, transformers  # noqa: F401
    from transformers import LlamaForCausalLM, Qwen3MoeForCausalLM, Trainer  # noqa: F401
    from loranb.memory.plans import plan
    from loranb.core.recipe import Recipe
    torch.set_num_threads(1)
    r, out = Recipe(model=MODELS[name], quant="nf4", r=16, max_length=1024, per_device_train_batch_size=2), {}
    p, *first = clock(lambda: (p := plan(r, "A100-80GB"), p.peak)[0])
    again = clock(lambda: plan(r, "A100-80GB").peak)[1:]
    for move, change in MOVES.items(): out[move] = clock(lambda: plan(r.replace(**change), "A100-80GB").peak)[1:]
    full = plan(r, "A100-80GB", full=True)
    print(json.dumps(dict(first=first, again=again, moves=out, peak=p.peak, weights=p.parts["weights"]
        + p.parts["constants"], full=full.peak)))


def theirs(name, folder):
    "Its own command, except that the configuration comes from a folder, where it would ask the Hub"
    from accelerate import init_empty_weights
    from accelerate.commands import estimate
    from transformers import AutoConfig, AutoModel
    import transformers.models.llama.modeling_llama, transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401
    def empty(*args, **kw):
        with init_empty_weights(): return AutoModel.from_config(AutoConfig.from_pretrained(folder))
    estimate.create_empty_model = empty
    args = estimate.estimate_command_parser().parse_args([str(folder), "--library_name", "transformers", "--dtypes",
        "int4", "float16"])
    rows, wall, own = clock(lambda: estimate.gather_data(args))
    print(json.dumps(dict(first=[wall, own], rows=rows)))


def main():
    from loranb.core.recipe import Recipe
    from loranb.models.shapes import find_config
    gb = lambda n: f"{n/1e9:.1f} GB"
    for name, model in MODELS.items():
        folder = pathlib.Path(tempfile.mkdtemp())/name
        find_config(Recipe(model=model)).save_pretrained(folder)
        run = lambda *a: subprocess.run([sys.executable, __file__, *a], capture_output=True, text=True)
        a, b = run("--ours", name), run("--theirs", name, "--folder", str(folder))
        if a.returncode: raise SystemExit(a.stderr[-2000:])
        d = json.loads(a.stdout.splitlines()[-1])
        print(f"{name:4} {model}: first plan {d['first'][0]:.0f} ms ({d['first'][1]:.0f} ms of its own processor "
            f"time; limit 2000), again {d['again'][0]:.1f} ms")
        print("     a control moves (limit 150): " + ", ".join(f"{k} {v[0]:.0f} ({v[1]:.0f})" for k,
            v in d["moves"].items()))
        print(f"     predicts {gb(d['peak'])} for NF4, r=16, 2 x 1024 with checkpointing, of them {gb(d['weights'])} "
            f"weights and constants; full fine-tuning {gb(d['full'])}")
        if b.returncode: print(f"     accelerate estimate-memory: {b.stderr.strip().splitlines()[-1][:160]}")
        else:
            t = json.loads(b.stdout.splitlines()[-1])
            print(f"     accelerate estimate-memory: {t['first'][0]:.0f} ms ({t['first'][1]:.0f}), ratio "
                f"{t['first'][1]/d['first'][1]:.2f}; "
                + ", ".join(f"{r[0]}: model {gb(r[2])}, training with Adam "
                f"{gb(r[3]) if not isinstance(r[3], dict) else gb(max(r[3].values()))}" for r in t["rows"]))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--ours"); p.add_argument("--theirs"); p.add_argument("--folder")
    a = p.parse_args()
    ours(a.ours) if a.ours else theirs(a.theirs, a.folder) if a.theirs else main()
