"""Files of strangers, broken at random: each is read, or refused in one sentence; none hangs, none is code, none gives a traceback.

    python tests/soak/fuzz.py [--cases 2000] [--seed 0] [--only 17]

A third each: folders of adapters (their configuration and their tensors), recipes in YAML, and files of rows. A case is a good file
with a few edits: a value replaced, a key taken away or added, bytes cut, doubled or overwritten. Five seconds are its limit.
"""
import argparse, collections, copy, json, random, shutil, signal, sys, tempfile, time, traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1]/"cases")]
ODD = [None, True, -1, 0, 3, 1e309, float("nan"), 2**70, "", "x"*10_000, "\ud800", "🙂", "../../etc", "(a+)+$", ".*"*30, [], {}, [[]],
    [None], {"": 0}, {"q_proj": -1}, [1, "two"], "nf4", "all-linear", b"\xff".decode("latin-1")]


def odd(rng): return copy.deepcopy(rng.choice(ODD))


def nodes(tree, path=()):
    "Every place in nested lists and dictionaries"
    yield path
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for k, v in inside: yield from nodes(v, (*path, k))


def broken(tree, rng):
    "A copy with one to three places changed"
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice([p for p in nodes(tree) if p] or [()])
        if not path: return odd(rng)
        at = tree
        for k in path[:-1]: at = at[k]
        how = rng.random()
        if how < .2: del at[path[-1]]
        elif how < .3 and isinstance(at, dict): at[rng.choice(["", "lora_B_layout", "auto_mapping", "🙂", "r "])] = odd(rng)
        else: at[path[-1]] = odd(rng)
    return tree


def damaged(data, rng):
    "Bytes that were cut, doubled or overwritten"
    data, at = bytearray(data), rng.randrange(max(1, len(data)))
    how = rng.randrange(4)
    if how == 0: return bytes(data[:at])
    if how == 1: return bytes(data[:at] + data[at//2:])
    if how == 2: return b"\xef\xbb\xbf" + bytes(data)
    for _ in range(rng.randint(1, 8)): data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def as_json(tree): return json.dumps(tree, default=str).encode("utf-8", "surrogatepass")


class Adapters:
    def __init__(self, home):
        from small import adapter, llama
        from loranb.spectra.spectra import Spectra
        self.home, self.read = home/"a", Spectra.of
        adapter(llama(home/"base", hidden_size=16, intermediate_size=16, num_hidden_layers=1), self.home, noise=.1)
        self.config = json.loads((self.home/"adapter_config.json").read_text())
        self.tensors = (self.home/"adapter_model.safetensors").read_bytes()

    def make(self, rng, path):
        path.mkdir()
        tensors = damaged(self.tensors, rng) if rng.random() < .4 else self.tensors
        config = as_json(broken(self.config, rng)) if rng.random() < .8 else damaged(as_json(self.config), rng)
        (path/"adapter_config.json").write_bytes(config)
        (path/"adapter_model.safetensors").write_bytes(tensors)


class Recipes:
    def __init__(self, home):
        from loranb.core.recipe import Recipe
        self.read = lambda path: Recipe.from_yaml(path)
        self.good = dict(model="petit", data="petit/translate", quant="nf4", r=8, lora_alpha=16, target_modules=["q_proj"],
            rank_pattern={"q_proj": 4}, max_steps=3, learning_rate=1e-3, columns={"user": "a"}, labels=["a", "b"],
            lr_scheduler_kwargs={"x": 1}, acknowledged=["overlap"], test_size=.1, optim="auto")
        Recipe.from_yaml(json.dumps(self.good))  # the good one is read

    def make(self, rng, path):
        import yaml
        tree = broken(self.good, rng)
        try: text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        except yaml.YAMLError: text = as_json(tree)
        path.write_bytes(damaged(text, rng) if rng.random() < .4 else text)


class Rows:
    def __init__(self, home):
        from loranb.data.rows import find_rows
        self.read = lambda path: find_rows(str(path)).texts()
        self.good = [dict(messages=[dict(role="user", content=f"say {i}"), dict(role="assistant", content="one")]) for i in
            range(6)]

    def make(self, rng, path):
        rows = broken(self.good, rng)
        lines = b"\n".join(map(as_json, rows)) if isinstance(rows, list) else as_json(rows)
        path.write_bytes(damaged(lines, rng) if rng.random() < .5 else lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", type=int, default=2000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", type=int)
    args = p.parse_args()
    from loranb.core.fields import RecipeError
    def late(*_): raise TimeoutError("five seconds are over")
    signal.signal(signal.SIGALRM, late)
    home, found, wrong = Path(tempfile.mkdtemp(prefix="loranb-fuzz-")), collections.Counter(), []
    kinds = [(Adapters(home), ""), (Recipes(home), ".yaml"), (Rows(home), ".jsonl")]
    began = time.time()
    for n in range(args.cases) if args.only is None else [args.only]:
        rng, (kind, end) = random.Random(f"{args.seed} {n}"), kinds[n % 3]
        path, name = home/f"case{end}", type(kind).__name__
        kind.make(rng, path)
        signal.setitimer(signal.ITIMER_REAL, 5)
        try:
            kind.read(path)
            found[f"{name}: read"] += 1
        except RecipeError as e:
            if "\n" in str(e) or len(str(e)) > 1000: wrong.append((n, name, f"{len(str(e))} characters: {str(e)[:300]!r}"))
            found[f"{name}: refused"] += 1
        except BaseException as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            wrong.append((n, name, f"{type(e).__name__}: {str(e)[:200]!r} ({Path(where.filename).name}:{where.lineno})"))
        finally: signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(home)
    for o in wrong[:60]: print(*o)
    print(", ".join(f"{k} {v}" for k, v in sorted(found.items())))
    print(f"{args.cases} cases, {len(wrong)} wrong, {time.time() - began:.0f} s, seed {args.seed}")
    sys.exit(bool(wrong))


if __name__ == "__main__": main()
