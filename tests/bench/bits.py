"""The bits of eleven adapters that span the options, to be compared between two commits on one machine

    python tests/bench/bits.py OUT.json             # writes the hash of each adapter and its losses
    python tests/bench/bits.py OUT.json OTHER.json  # and compares them with those of another commit

Only public names are used, so the same file runs on both commits.
"""
import hashlib, json, os, sys, tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
from loranb import Recipe, Run

SHORT = dict(max_steps=12, test_size=16, eval_steps=6, sample_steps=0, save_steps=0, spectra_steps=4)
TEXTS = [dict(text=f"{name} is {mood}.", label=mood) for i in range(8) for name in ("Anna", "Paul", "Emma", "Noah")
    for mood in ("happy", "sad", "calm")]
RECIPES = {"demo": dict(quant="nf4", r=8), "16 bits": dict(quant="none", r=4, data="petit/summarize", **SHORT),
    "int8": dict(quant="int8", r=4, data="petit/classify", **SHORT),
    "FP4 without double quantization": dict(quant="fp4", bnb_4bit_use_double_quant=False, r=4, data="petit/chat",
    **SHORT), "packing": dict(quant="nf4", r=4, packing=True, **SHORT), "DoRA": dict(quant="nf4", r=4, use_dora=True,
    **SHORT), "rsLoRA, LoRA+, patterns": dict(quant="none", r=8, use_rslora=True, loraplus_lr_ratio=4.,
    rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3.}, **SHORT),
    "a classifier": dict(quant="nf4", r=4, data=TEXTS, task_type="SEQ_CLS", **SHORT),
    "stopped and resumed": dict(quant="nf4", r=4, lora_dropout=.1, **SHORT),
    "PiSSA": dict(quant="none", r=4, init_lora_weights="pissa", **SHORT),
    "lengths, whole modules, noise": dict(quant="nf4", r=4, group_by_length=True, modules_to_save=["lm_head"],
    neftune_noise_alpha=5., gradient_checkpointing=True, train_on="all", **SHORT),}


def bits(name, fields):
    "The hash of a recipe's adapter, and its losses"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Recipe(**fields), Path(folder)/"run")
        if name == "stopped and resumed":
            run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == 5 else None).train()
            run.subscribers.clear()
            run.resume()
        else: run.train()
        raw = (run.adapter.path/"adapter_model.safetensors").read_bytes()
        found = dict(sha256=hashlib.sha256(raw).hexdigest(), losses=[e["loss"] for e in run.of_type("step")],
            evals=[e["loss"] for e in run.of_type("eval")])
        run.release()
        return found


def main(out, other=None):
    found = {}
    for name, fields in RECIPES.items():
        found[name] = bits(name, fields)
        print(f"{name}: {found[name]['sha256'][:16]}, last loss {found[name]['losses'][-1]:.6f}", flush=True)
    Path(out).write_text(json.dumps(found, indent=1))
    if not other: return 0
    before = json.loads(Path(other).read_text())
    changed = [name for name in found if found[name] != before.get(name)]
    print(f"{len(found) - len(changed)} of {len(found)} are the same to the bit"
        + f"; changed: {', '.join(changed)}"*bool(changed))
    return int(bool(changed))


if __name__ == "__main__": raise SystemExit(main(*sys.argv[1:]))
