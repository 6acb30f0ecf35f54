"""A run of 40 steps, killed a hundred times: at random moments, before the first checkpoint, and before each operation on a file.

    python tests/soak/kill.py [--kills 100] [--seed 0] [--only 17]

A server that has imported everything forks one child for each life of a run. A child counts what is done to files below the run's folder: Python's own operations by an audit hook, and `fsync`,
`torch.save` and safetensors' writing by a wrapper, whose file is also left half written. Before operation number n it sends SIGKILL to its process group. The run is then resumed until it is done.
In the end its adapter must be that of a run that nobody killed, bit for bit; its events and its spectra must be complete; and no damaged checkpoint may have been opened or kept.
"""
import argparse, hashlib, json, os, random, shutil, signal, sys, tempfile, time
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.link", "shutil.rmtree",
    "shutil.copyfile", "shutil.copytree"}


class Killer:
    "Ends this process group before the operation `at` on a file below `root`, or counts them all"
    def __init__(self, root, at=None, half=False):
        self.root, self.at, self.half, self.n, self.log = str(root), at, half, 0, []

    def did(self, what, path, half=None):
        self.n += 1
        if self.at is None: self.log.append(f"{what} {Path(str(path)).name}")
        if self.n != self.at: return
        if self.half and half: half()
        os.killpg(0, signal.SIGKILL)
        time.sleep(60)

    def audit(self, event, args):
        if event == "open":
            wanted = isinstance(args[0], (str, os.PathLike)) and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else: wanted = event in WRITES
        if not wanted or not args: return
        path = str(args[0])
        if not path.startswith("/") and len(args) > 1 and isinstance(args[1], int) and args[1] > 2:
            path = f"{os.readlink(f'/proc/self/fd/{args[1]}')}/{path}"
        if path.startswith(self.root): self.did(event, path)

    def watch(self):
        import safetensors.torch, torch
        sys.addaudithook(self.audit)
        fsync, save, tensors = os.fsync, torch.save, safetensors.torch.save_file
        def torn(write, path):
            def half():
                write()
                with open(path, "r+b") as f: f.truncate(os.path.getsize(path)//2)
            return half
        def told_fsync(fd): self.did("fsync", os.readlink(f"/proc/self/fd/{fd}")); fsync(fd)
        def told_save(obj, f, *a, **kw):
            self.did("torch.save", f, torn(lambda: save(obj, f, *a, **kw), f))
            save(obj, f, *a, **kw)
        def told_tensors(t, f, *a, **kw):
            self.did("save_file", f, torn(lambda: tensors(t, f, *a, **kw), f))
            tensors(t, f, *a, **kw)
        os.fsync, torch.save = told_fsync, told_save
        for m in list(sys.modules.values()):
            for name in ("save_file", "safe_save_file"):
                if getattr(m, "__dict__", {}).get(name) is tensors: setattr(m, name, told_tensors)


def life(recipe, path, at=None, half=False, count=None, log=os.devnull, delay=None):
    "One life of the run in `path`, in a child with a process group of its own; returns its wait status"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1); os.dup2(out, 2)
            from loranb.train.run import Run
            killer = Killer(path, at, half)
            if at is not None or count is not None: killer.watch()
            run = Run.open(path) if (path/"recipe.yaml").exists() else Run(recipe, path)
            run.resume()
            if count is not None: Path(count).write_text(json.dumps(killer.log))
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally: os._exit(code)
    if delay is not None:
        time.sleep(delay)
        try: os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError: pass
    return os.waitpid(pid, 0)[1]


def fingerprint(path): return hashlib.sha256((path/"adapter"/"adapter_model.safetensors").read_bytes()).hexdigest()


def story(path):
    "The events that must not depend on being killed, without times and sizes of memory; spectra come when their worker is ready, so the order is not compared"
    from loranb.train.run import Run
    run, drop = Run.open(path), {"seconds", "memory", "memory_peak", "cost"}
    told = [{k: v for k, v in e.items() if k not in drop} for e in run.events if e["type"] not in ("start", "note",
        "memory")]
    return sorted(map(repr, told)), [(s, o.to_arrays()[1].tolist()) for s, o in run.spectra_history], run.state


def verify(path, whole, log):
    "What is wrong with a run that was killed and resumed; empty when nothing is"
    from loranb.runs.checkpoint import checkpoints
    from loranb.core.disk import find_damage
    wrong = []
    if fingerprint(path) != fingerprint(whole): wrong.append("another adapter")
    for name, a, b in zip(("events", "spectra", "state"), story(path), story(whole)):
        if a != b:
            wrong.append(f"other {name}: {next((x, y) for x, y in zip(a, b) if x != y) if len(a) == len(b) else (len(a), len(b))}")
    if bad := [p.name for p in checkpoints(path) if find_damage(p)]: wrong.append(f"damaged checkpoints kept: {bad}")
    if left := sorted(p.name for p in path.iterdir() if p.name.startswith(".")
            or p.name.endswith((".new", ".old", ".part")) or p.name == "run.lock"):
        wrong.append(f"left behind: {left}")
    if "Traceback" in log.read_text(): wrong.append(f"an error: {log.read_text()[-600:]}")
    return wrong


def soak(root, recipe, kills=100, seed=0, only=None, say=print):
    "Kill and resume; returns how many kills there were and what went wrong"
    # noqa: what a child would import
    import loranb.train, accelerate, bitsandbytes, datasets, peft.tuners.lora, transformers.trainer
    rng, began, bad = random.Random(seed), time.time(), []
    whole, count = root/"whole", root/"count.json"
    assert life(recipe, whole, count=count, log=root/"whole.log") == 0, (root/"whole.log").read_text()
    ops, seconds = json.loads(count.read_text()), time.time() - began
    saves = [i for i, o in enumerate(ops, 1) if o == "os.mkdir .saving"]
    # every operation of a checkpoint's writing, with the going of an old one
    third = list(range(saves[2] - 1, saves[3] - 1))
    say(f"{len(ops)} operations on files in a run of {recipe.max_steps} steps and {seconds:.1f} s; {len(third)} of "
        "them write the third checkpoint")
    plans = [("early", dict(at=rng.randrange(1, saves[0]))) for _ in range(kills//10)]
    n = min(len(third), kills*2//3)
    plans += [("stage", dict(at=third[int((i + seed % 2/2)*len(third)/n)], half=bool(i % 2))) for i in range(n)]
    plans += [("random", dict(delay=rng.uniform(.1, seconds))) for _ in range(kills - len(plans))]
    done = 0
    for i, (kind, how) in enumerate(plans):
        if only is not None and i != only: continue
        path, log = root/f"run-{i}", root/f"run-{i}.log"
        killed = lambda: os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        status = life(recipe, path, log=log, **how)
        while kind == "random" and not killed():  # it was faster
            shutil.rmtree(path, ignore_errors=True)
            how["delay"] /= 2
            status = life(recipe, path, log=log, **how)
        killed = killed()
        done += killed
        again = life(recipe, path, log=log) if killed else status
        wrong = verify(path, whole, log) if again == 0 else [f"it did not end: {log.read_text()[-800:]}"]
        if wrong: bad.append((i, kind, how, ops[how["at"] - 1] if "at" in how else "", wrong)); say(f"  {bad[-1]}")
        else: shutil.rmtree(path, ignore_errors=True)
        if (i + 1) % 10 == 0:
            say(f"{i + 1} of {len(plans)}: {done} killed, {len(bad)} wrong, {time.time() - began:.0f} s")
    return done, bad


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", type=int)
    p.add_argument("--steps", type=int, default=40)
    a = p.parse_args()
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
    from loranb.core.recipe import Recipe
    from tiny import tiny_base
    root = Path(tempfile.mkdtemp(prefix="loranb-kill-"))
    # the server itself computes nothing, so that it can be forked
    if not (pid := os.fork()): tiny_base(root/"base"); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    rows = [{"prompt": f"{i} and {j} is", "completion": f" {i + j}"} for i in range(9) for j in range(9)]
    recipe = Recipe(model=str(root/"base"), data=rows, r=2, max_steps=a.steps, save_steps=a.steps//4,
        eval_steps=a.steps//2, spectra_steps=a.steps//8, sample_steps=a.steps//4, test_size=4,
        per_device_train_batch_size=2, gradient_accumulation_steps=1, gradient_checkpointing=False, learning_rate=1e-2,
        lora_dropout=.1, max_length=32)
    done, bad = soak(root, recipe, a.kills, a.seed, a.only, say=lambda *o: print(*o, flush=True))
    print(f"{done} kills, {len(bad)} wrong" + (f"; see {root}" if bad else ""))
    if not bad: shutil.rmtree(root)
    raise SystemExit(bool(bad))
