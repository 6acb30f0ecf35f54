"""Many runs in one kernel: the resident memory of the process must not grow with them.

    python tests/soak/runs.py [--runs 200]

After a warm-up of an eighth of them the memory is taken as the median of a few runs, and so it is at the end.
"""
import argparse, gc, os, shutil, statistics, sys, tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=200)
    n = p.parse_args().runs
    import psutil
    from loranb.core.recipe import Recipe
    from loranb.train.run import Run
    from tiny import tiny_base
    root, rss = Path(tempfile.mkdtemp(prefix="loranb-runs-")), []
    rows = [{"prompt": f"{i} and {i} is", "completion": f" {2*i}"} for i in range(12)]
    recipe = Recipe(model=tiny_base(root/"base"), data=rows, r=2, max_steps=2, save_steps=1, eval_steps=1,
        spectra_steps=1, test_size=2, per_device_train_batch_size=2, gradient_accumulation_steps=1,
        gradient_checkpointing=False, max_length=32)
    for i in range(n):
        run = Run(recipe, root/f"run-{i}")
        if i % 4 == 0: run.on(lambda e, run=run: run.pause() if e["type"] == "step" and e["step"] == 1 else None)
        run.train()
        if run.state == "paused": run.subscribers.clear(); run.resume()
        assert run.state == "done"
        shutil.rmtree(run.path)
        gc.collect()
        rss.append(psutil.Process().memory_info().rss)
    warm, few = n//8, max(3, n//16)
    first, last = statistics.median(rss[warm:warm + few]), statistics.median(rss[-few:])
    print(f"{n} runs: {first/1e6:.1f} MB after {warm}, {last/1e6:.1f} MB at the end, {last/first - 1:+.2%}")
    shutil.rmtree(root)
    raise SystemExit(last > 1.02*first)
