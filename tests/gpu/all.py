"""All that only a GPU can show, in one command and in eight minutes: the most valuable first, every result written at once.

    python tests/gpu/all.py [--minutes 8] [--only STAGE] [--from STAGE] [--out FOLDER]

Stages, in their order: first, memory, speed, limits, giants, long. Each has its share of the minutes; what fails or takes longer is said and does
not stop the next. Results are appended to gpu.jsonl, a check a line, and summed up in gpu.md. Without a GPU the same lines run on tiny shapes and
write cpu.jsonl and cpu.md, which shows that the script works and nothing more. tests/gpu/README.md has the budget, line by line.
"""
import argparse, datetime, importlib, json, os, pathlib, queue, subprocess, sys, tempfile, threading, time

HERE = pathlib.Path(__file__).parent
# The module of each stage, and its share of the time in seconds of eight minutes; 15 are for the libraries' import.
STAGES = dict(first=("first_light", 70), memory=("memory", 125), speed=("speed", 120), limits=("limits", 60),
    giants=("giants", 30), long=("long_rows", 50))
GRACE = 15  # Seconds that a stage may take longer before its process is ended


def work(names, minutes, root, out, began):
    "Run stages one after the other in this process, and tell the other one where it is"
    sys.path.insert(0, str(HERE))
    import torch
    import bases
    device = torch.cuda.get_device_name() if bases.CUDA else "CPU"
    about = dict(device=device, date=str(datetime.date.today()), began=began, versions=bases.versions())
    file = out/("gpu.jsonl" if bases.CUDA else "cpu.jsonl")
    print(f"results {file}", flush=True)
    for name in names:
        print(f"stage {name}", flush=True)
        for row in run_stage(name, minutes, root):
            with open(file, "a", encoding="utf-8") as f: f.write(bases.line({**about, "stage": name, **row}) + "\n")
            print("row " + json.dumps(dict(name=row["name"], ok=row["ok"], seconds=row["seconds"])), flush=True)
    print("done", flush=True)


def run_stage(name, minutes, root):
    "The checks of a stage, as long as its time lasts"
    import bases
    module, budget = STAGES[name]
    until = time.monotonic() + budget*minutes/8
    for title, check in importlib.import_module(module).checks(root):
        if time.monotonic() > until:
            yield dict(name=title, ok=None, left_out="no time was left", seconds=0)
            continue
        began = time.monotonic()
        yield dict(tried(check), name=title, seconds=round(time.monotonic() - began, 1))
        bases.free()


def tried(check):
    "What a check found, or how it failed"
    import traceback
    from loranb.train.measure import drop_frames
    try: return check()
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        drop_frames(e)
        return dict(ok=False, error=f"{type(e).__name__}: {str(e)[:300]} "
            f"({pathlib.Path(where.filename).name}:{where.lineno})")


class Watched:
    "A process that works through stages, and what it says"
    def __init__(self, names, args, root):
        command = [sys.executable, str(HERE/"all.py"), "--work", *names, "--minutes", str(args.minutes), "--root",
            str(root), "--out", str(args.out), "--began", args.began]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"})
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout: self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def next(self, until):
        "The next line; None at the end of the process, and where it has said nothing in time"
        try: return self.lines.get(timeout=max(0., until - time.monotonic()))
        except queue.Empty: return None


def watch(names, args, root):
    "Have all stages run; where their process dies or hangs, go on with the stage after in another one"
    names, file = list(names), None
    while names:
        worker, stage, until, told = Watched(names, args, root), None, time.monotonic() + 90, []
        while (line := worker.next(until)) is not None:
            kind, _, rest = line.partition(" ")
            if kind == "results": file = pathlib.Path(rest)
            if kind in ("stage", "done"): say(stage, told)
            if kind == "row": told.append(json.loads(rest))
            if kind == "stage": stage, told, until = rest, [], time.monotonic() + STAGES[rest][1]*args.minutes/8 + GRACE
            if kind == "done": return file
        alive = worker.process.poll() is None
        worker.process.kill()
        say(stage, told, "took too long and was ended" if alive else f"its process ended ({worker.process.wait()})")
        if file and stage:
            lost = dict(stage=stage, name="the stage", ok=False, error="took too long" if alive
                else "its process ended", began=args.began)
            with open(file, "a", encoding="utf-8") as f: f.write(json.dumps(lost) + "\n")
        names = names[names.index(stage) + 1:] if stage else []
    return file


def say(stage, rows, trouble=""):
    "One line about a stage"
    if stage is None: return print(trouble, flush=True) if trouble else None
    held, wrong = sum(r["ok"] is True for r in rows), [r["name"] for r in rows if r["ok"] is False]
    left = sum(r["ok"] is None for r in rows)
    text = f"{stage}: {held} of {len(rows)} held in {sum(r['seconds'] for r in rows):.0f} s of {STAGES[stage][1]}"
    text += (f"; wrong: {', '.join(wrong)}"*bool(wrong) + f"; {left} left out for want of time"*bool(left)
        + f"; {trouble}"*bool(trouble))
    print(text, flush=True)


def newest(file):
    "Of each stage the results of the newest call that went through it"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    last = {r["stage"]: r["began"] for r in rows}
    return [r for r in rows if r["began"] == last[r["stage"]]]


def short(value):
    "A figure in a table"
    if isinstance(value, float): return f"{value:.4g}"
    if isinstance(value, dict): return ", ".join(f"{k} {short(v)}" for k, v in value.items())
    return str(value)


def write_table(file):
    "The results as a table in Markdown"
    rows = newest(file)
    head = next((r for r in rows if "versions" in r), {})
    out = [f"{head.get('date')}, {head.get('device')}, " + ", ".join(f"{k} {v}" for k,
        v in head.get("versions", {}).items()), "", "| stage | check | held | seconds | figures |", "|---"*5 + "|"]
    apart = {"stage", "name", "ok", "seconds", "device", "date", "began", "versions"}
    for r in rows:
        figures = "; ".join(f"{k.replace('_', ' ')}: {short(v)}" for k, v in r.items() if k not in apart
            and v not in (None, [], {}))
        out.append(f"| {r['stage']} | {r['name']} | "
            f"{dict([(True, 'yes'), (False, 'no'), (None, 'left out')])[r['ok']]} | {r.get('seconds', '')} | "
            f"{figures} |")
    file.with_suffix(".md").write_text("\n".join(out) + "\n", encoding="utf-8")
    return [f"{r['stage']}: {r['name']}" for r in rows if r["ok"] is False]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=8, help="what all stages may take together")
    p.add_argument("--only", choices=STAGES, help="this stage alone")
    p.add_argument("--from", dest="first", choices=STAGES, default="first", help="this stage and those after it")
    p.add_argument("--out", type=pathlib.Path, default=HERE/"results", help="where the results are appended")
    p.add_argument("--root", type=pathlib.Path, help=argparse.SUPPRESS)
    p.add_argument("--began", default=datetime.datetime.now().isoformat(timespec="seconds"), help=argparse.SUPPRESS)
    p.add_argument("--work", nargs="+", choices=STAGES, help=argparse.SUPPRESS)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.work: return work(args.work, args.minutes, args.root, args.out, args.began)
    names = list(STAGES)
    names = [args.only] if args.only else names[names.index(args.first):]
    with tempfile.TemporaryDirectory() as root: file = watch(names, args, pathlib.Path(root))
    if file is None: return "no stage could begin"
    wrong = write_table(file)
    return f"wrong: {', '.join(wrong)}" if wrong else 0


if __name__ == "__main__": raise SystemExit(main())
