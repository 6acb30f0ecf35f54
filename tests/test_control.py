"Stop, pause, follow and survive: what is asked is done at once or said, and what was saved is whole or refused."
import contextlib, hashlib, json, os, random, resource, shutil, signal, socket, subprocess, sys, tempfile, threading, time, weakref
from pathlib import Path
from types import SimpleNamespace

import psutil, pytest, torch

from loranb.adapters.folder import files_beside
from loranb.evaluate import scores
from loranb.runs.checkpoint import checkpoints, newest_whole
from loranb.core.disk import find_damage, whole_folder
from loranb.train.failures import explain_failure
from loranb.runs.lock import SILENT, Lock, who_works_in, this_process
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.train.run import Run

sys.path.insert(0, str(Path(__file__).parent/"soak"))
from tiny import tiny_base

ROWS = [{"prompt": f"{i} and {j} is", "completion": f" {i + j}"} for i in range(8) for j in range(8)]
RECIPE = Recipe(model=tiny_base(tempfile.mkdtemp(prefix="loranb-base-")), data=ROWS, r=2, max_steps=6, save_steps=2,
    eval_steps=2, sample_steps=3, spectra_steps=2, test_size=4, per_device_train_batch_size=2,
    gradient_accumulation_steps=1, gradient_checkpointing=False, learning_rate=1e-2, lora_dropout=.1, max_length=32)
LOOSE = {"seconds", "memory", "memory_peak", "cost"}


def fingerprint(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()
def story(run):
    return sorted(({k: v for k, v in e.items() if k not in LOOSE} for e in run.events if e["type"] not in ("start",
        "note", "memory")), key=repr)
def notes(run): return " ".join(e["message"] for e in run.of_type("note"))
def at(run, type, step, fn): return run.on(lambda e: fn() if e["type"] == type and e["step"] == step else None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory): return Run(RECIPE, tmp_path_factory.mktemp("runs")/"whole").train()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    "The folder of a run that was stopped after step 4, with two checkpoints"
    run = Run(RECIPE, tmp_path_factory.mktemp("runs")/"stopped")
    at(run, "step", 4, run.stop).train()
    assert run.state == "stopped" and [p.name for p in checkpoints(run.path)] == ["checkpoint-2", "checkpoint-4"]
    return run.path


@pytest.fixture
def half(stopped, tmp_path): return Path(shutil.copytree(stopped, tmp_path/"half"))


# a pause adds a checkpoint and a frame, and may put what is due after it
def core(run): return sorted(repr(e) for e in story(run) if e["type"] in ("step", "eval", "sample", "done"))
def same(run, whole): return fingerprint(run) == fingerprint(whole) and core(run) == core(whole) and run.state == "done"


# ---- pause

@pytest.mark.parametrize("step", [0, 3])
def test_paused_sampled_and_resumed(whole, tmp_path, step):
    run = Run(RECIPE, tmp_path/"run")
    at(run, "step" if step else "start", step, run.pause).train()
    assert (run.state, run.steps, run.events[-1]["type"]) == ("paused", step,
        "pause") and not (run.path/"run.lock").exists()
    run.subscribers.clear()
    model, before = run._model, fingerprint(run)
    torch.manual_seed(99)
    texts = run.generate([r["prompt"] for r in ROWS[:20]], 4)
    model.eval()
    for p in model.parameters(): p.requires_grad_(False)
    assert len(texts) == 20 and fingerprint(run) == before and Run.open(run.path).state == "paused"
    run.resume()
    assert same(run, whole) and run._model is model, "the model was loaded again"


def test_paused_in_an_evaluation(whole, tmp_path, monkeypatch):
    run, loss, left = Run(RECIPE, tmp_path/"run"), scores.held_out_loss, {}
    def slow(*args):
        if run.steps != 4: return loss(*args)
        threading.Timer(.1, lambda: (left.update(asked=time.monotonic()), run.pause())).start()
        try: time.sleep(60)
        finally: left["at"] = time.monotonic()
    monkeypatch.setattr("loranb.train.observer.held_out_loss", slow)
    run.train()
    assert run.state == "paused" and run.steps == 4 and left["at"] - left["asked"] < 1 and not [e
        for e in run.of_type("eval") if e["step"] == 4]
    monkeypatch.undo()
    assert same(run.resume(), whole), "what was left out is owed"


# ---- stop, in every phase

def leave(run, word, seen):
    "Stop from another thread once the run says that it does something; notes when"
    def watch():
        while word not in run.doing: time.sleep(.01)
        time.sleep(.2)
        seen.update(doing=run.doing, at=time.monotonic())
        run.stop()
    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("phase,word,where", [("load_base", "loading", "loranb.train.run"),
    ("prepare", "tokenizing", "loranb.train.run"), ("answer_prompts", "answering", "loranb.train.observer"),
    ("held_out_loss", "evaluating", "loranb.train.observer"), ("proof", "checking", "loranb.train.run")])
def test_stop_ends_what_is_no_step_at_once(tmp_path, monkeypatch, phase, word, where):
    recipe, seen, left = RECIPE.replace(max_steps=1, sample_steps=0), {}, {}
    run, module = Run(recipe, tmp_path/"run"), sys.modules[where]
    def slow(*args, **kw):
        try: time.sleep(60)
        finally: left.setdefault("at", time.monotonic())
    monkeypatch.setattr(module, phase, slow)
    leave(run, word, seen)
    run.train()
    assert left["at"] - seen["at"] < 1
    assert run.state == ("done" if run.steps else "stopped") and (run.steps == 1 or phase in ("load_base", "prepare",
        "answer_prompts"))
    if phase in ("load_base", "prepare"): assert not run.path.exists()
    monkeypatch.undo()
    if run.state != "done": assert run.resume().state == "done"


def test_stop_while_saving_says_what_it_waits_for(whole, tmp_path, monkeypatch):
    import loranb.train.run
    run, seen, commit = Run(RECIPE, tmp_path/"run"), {}, loranb.train.run.commit_checkpoint
    monkeypatch.setattr(loranb.train.run, "commit_checkpoint", lambda *a,
        **kw: (time.sleep(.6), seen.update(state=run.state, doing=run.doing), commit(*a, **kw))[-1])
    leave(run, "saving", seen)
    run.train()
    assert seen["state"] == "stopping" and seen["doing"] == "saving checkpoint-2" and run.state == "stopped" and run.steps == 2 and not find_damage(run.path/"checkpoint-2")
    monkeypatch.undo()
    assert fingerprint(Run.open(run.path).resume()) == fingerprint(whole)


def test_stop_and_pause_of_a_run_that_does_not_work_do_nothing(whole):
    events = list(whole.events)
    whole.stop(); whole.pause()
    assert whole.state == "done" and whole.events == events
    with pytest.raises(RecipeError, match="it is done"): whole.resume()


# ---- two processes

@pytest.mark.slow
def test_a_run_is_followed_not_resumed_twice_and_survives_its_process(whole, tmp_path):
    path = tmp_path/"run"
    code = f"""
import json, time
from loranb.core.recipe import Recipe; from loranb.train.run import Run
run = Run(Recipe(**json.loads({json.dumps({k: v for k, v in RECIPE.changed().items()})!r})), {str(path)!r})
run.on(lambda e: time.sleep(60) if e['type'] == 'step' and e['step'] == 5 else None).train()"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True)
    try:
        while not (path/"events.jsonl").exists(): time.sleep(.1); assert process.poll() is None
        run = Run.open(path)
        told = []
        run.on(told.append).on(lambda e: os.killpg(process.pid, signal.SIGKILL) if e["type"] == "step"
            and e["step"] == 5 else None)
        assert run.state == "training" and who_works_in(path)["pid"] == process.pid
        for refused in (run.resume, run.stop, Run.open(path).resume):
            with pytest.raises(RecipeError, match=rf"worked on by process {process.pid}"): refused()
        threading.Thread(target=process.wait, daemon=True).start()
        run.follow(every=.05)
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
    assert run.state == "stopped" and run.steps == 5 and [e["step"] for e in told if e["type"] == "step"][-1] == 5
    assert len(run.spectra_history) == len(run.of_type("spectra")) and (path/"run.lock").exists()
    run.subscribers.clear()
    assert same(run.resume(), whole) and story(run) == story(whole)


def test_whose_lock_it_is(tmp_path, monkeypatch):
    lock = tmp_path/"run.lock"
    parent = dict(this_process(), pid=os.getppid(), began=psutil.Process(os.getppid()).create_time())
    for who, alive in ((parent, True), (this_process(), False), (dict(parent, began=1.), False),
            (dict(this_process(), pid=2**22 + 1), False), (dict(pid=1, host="elsewhere", began=1.), True)):
        lock.write_text(json.dumps(who))
        assert bool(who_works_in(tmp_path)) == alive
    os.utime(lock, (time.time() - SILENT - 9,)*2)
    assert who_works_in(tmp_path) is None
    for broken in ("", "{", "[]"[:1]):
        lock.write_text(broken)
        assert who_works_in(tmp_path), "a lock that is being written counts"
    lock.write_text(json.dumps(dict(this_process(), pid=2**22 + 1)))
    with Lock(tmp_path):
        assert who_works_in(tmp_path) == this_process() and [p.name for p in tmp_path.iterdir()] == ["run.lock"]
        with pytest.raises(RecipeError, match="this kernel"): Lock(tmp_path).__enter__()
        assert who_works_in(tmp_path) == this_process()
    assert not lock.exists()


# ---- damage

def harm(p, how):
    data = p.read_bytes()
    if how == "missing": p.unlink()
    else: p.write_bytes(data[:len(data)//2] if how == "half" else data[:-1] + bytes([data[-1] ^ 1]))


def test_no_damage_goes_unseen(half):
    "Every file of a checkpoint, missing, cut in half or with one bit turned"
    files, seen = sorted(p for p in (half/"checkpoint-4").iterdir()), []
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
        "manifest.json"} <= {p.name for p in files} and not find_damage(half/"checkpoint-4")
    for p in files:
        keep = p.read_bytes()
        for how in ("missing", "half", "bit"):
            harm(p, how)
            if (p.name, how) != ("manifest.json", "bit"):
                assert p.name in find_damage(half/"checkpoint-4"), (p.name, how)
            p.write_bytes(keep)
    assert not find_damage(half/"checkpoint-4")


@pytest.mark.parametrize("names,how", [(["rng_state.pth"], "missing"), (["optimizer.pt", "manifest.json"], "half")])
def test_the_one_before_is_taken_and_that_is_said(whole, half, names, how, capsys):
    for n in names: harm(half/"checkpoint-4"/n, how)
    run = Run.open(half).resume()
    assert same(run, whole) and "checkpoint-4 is damaged" in notes(run) and "goes on from checkpoint-2" in notes(run) and "checkpoint-4 is damaged" in capsys.readouterr().err
    assert (half/"damaged-checkpoint-4").is_dir() and not [p for p in checkpoints(half) if find_damage(p)]


def test_without_a_whole_one_it_begins_anew(whole, half):
    for n in (2, 4): harm(half/f"checkpoint-{n}"/"scheduler.pt", "bit")
    run = Run.open(half).resume()
    assert same(run, whole) and "goes on from the beginning" in notes(run)


def test_a_damaged_log_is_told_and_costs_no_step(whole, half):
    lines = (half/"events.jsonl").read_text().splitlines(True)
    lines[3] = "x" + lines[3][1:]
    (half/"events.jsonl").write_text("".join(lines))
    (half/"spectra.bin").write_bytes((half/"spectra.bin").read_bytes()[:-100])
    run = Run.open(half).resume()
    assert fingerprint(run) == fingerprint(whole) and run.state == "done" and "events.jsonl was damaged" in notes(run) and "spectra.bin was damaged" in notes(run)
    assert Run.open(half).state == "done" and all("frame" not in e or e["frame"] < len(run.spectra_history)
        for e in run.events)


def test_killed_after_the_last_step(tmp_path):
    "All is saved and only the answers and the proof are missing: no step is done twice, also where the learning rate does not end at 0"
    run = Run(RECIPE.replace(lr_scheduler_type="constant"), tmp_path/"run").train()
    before, told = fingerprint(run), story(run)
    lines = (run.path/"events.jsonl").read_bytes().splitlines(True)
    (run.path/"events.jsonl").write_bytes(b"".join(lines[:-1]))
    again = Run.open(run.path)
    assert again.state == "stopped" and again.resume().state == "done" and fingerprint(again) == before and story(again) == told


def test_another_machine_is_said(half):
    head = json.loads((half/"run.json").read_text())
    assert head["threads"] == torch.get_num_threads() and {"torch", "transformers", "peft",
        "bitsandbytes"} <= set(head["versions"]) and head["optim"] == "adamw_torch" and head["instructions"]
    (half/"run.json").write_text(json.dumps(dict(head, threads=64, versions=dict(head["versions"], torch="1.0"))))
    run = Run.open(half).resume()
    assert "threads 64 then" in notes(run) and "torch 1.0 then" in notes(run) and "device" not in notes(run)


# ---- the world

def test_a_full_disk(whole, tmp_path):
    "A limit on the size of files stands in for it: the write fails in the midst of the second checkpoint"
    run, limit = Run(RECIPE, tmp_path/"run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    at(run, "step", 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, limit[1])))
    try:
        with pytest.raises(RecipeError, match="file is larger than is allowed.*The last whole checkpoint is "
                "checkpoint-2.*run.resume") as e:
            run.train()
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert run.state == "failed" and run._model is None and e.value.__context__ is None
    assert [p.name for p in checkpoints(run.path)] == ["checkpoint-2"] and not find_damage(run.path/"checkpoint-2") and not (run.path/".saving").exists() and Run.open(run.path).state == "failed"
    run.subscribers.clear()
    assert same(run.resume(), whole)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small disk, which only root can")
def test_a_really_full_disk(whole, tmp_path):
    disk = tmp_path/"disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        import loranb.train.run
        run = Run(RECIPE, disk/"run")
        with pytest.raises(RecipeError, match="2 MB are free"): run.train()
        check, loranb.train.run.check_folder = loranb.train.run.check_folder, lambda path: None
        try:
            at(run, "step", 3, lambda: (disk/"ballast").write_bytes(bytes(os.statvfs(disk).f_bavail*os.statvfs(disk).f_bsize - 100_000)))
            with pytest.raises(RecipeError, match="the disk is full.*checkpoint-2"): run.train()
        finally: loranb.train.run.check_folder = check
        (disk/"ballast").unlink()
        run.subscribers.clear()
        assert same(run.resume(), whole)
    finally: subprocess.run(["umount", str(disk)])


def test_no_number(whole, tmp_path):
    run = Run(RECIPE, tmp_path/"run")
    at(run, "step", 3, lambda: next(p for n, p in run._model.named_parameters()
        if "lora_B" in n).data.fill_(float("nan")))
    with pytest.raises(RecipeError, match="(loss of step 4 is nan|weights that are no "
            "numbers).*checkpoint-2.*learning_rate"):
        run.train()
    assert run.state == "failed" and [p.name for p in checkpoints(run.path)] == ["checkpoint-2"] and run.adapter.spectra
    run.subscribers.clear()
    assert same(run.resume(), whole)


def test_no_number_is_ever_saved(tmp_path):
    run = Run(RECIPE, tmp_path/"run")
    at(run, "step", 4, lambda: next(p for n, p in run._model.named_parameters()
        if "lora_A" in n).data[0].fill_(float("inf")))
    with pytest.raises(RecipeError, match="after step 4 the adapter holds weights that are no numbers"): run.train()
    assert [p.name for p in checkpoints(run.path)] == ["checkpoint-2"]


def test_a_worker_that_dies(whole, tmp_path, monkeypatch):
    import loranb.train.run
    args, collate = loranb.train.run.training_arguments, loranb.train.run.collate
    def with_worker(*given):
        res = args(*given)
        res.dataloader_num_workers = 1
        return res
    def deadly(rows, pad):
        if torch.utils.data.get_worker_info(): os.kill(os.getpid(), signal.SIGKILL)
        return collate(rows, pad)
    monkeypatch.setattr(loranb.train.run, "training_arguments", with_worker)
    monkeypatch.setattr(loranb.train.run, "collate", deadly)
    run = Run(RECIPE, tmp_path/"run")
    with pytest.raises(RecipeError, match="process that prepares the rows has died.*no checkpoint yet"): run.train()
    monkeypatch.undo()
    assert run.state == "failed" and same(run.resume(), whole)


def test_out_of_memory_gives_it_back(whole, tmp_path, monkeypatch):
    import gc, loranb.train.run
    collate, run = loranb.train.run.collate, Run(RECIPE, tmp_path/"run")
    monkeypatch.setattr(loranb.train.run, "collate", lambda rows, pad: torch.empty(2**50) if run.steps == 3
        else collate(rows, pad))
    at(run, "start", 0, lambda: held.append(weakref.ref(run._model)))
    held = []
    with pytest.raises(RecipeError, match="out of memory in step 4: Take recipe.replace.*checkpoint-2") as e:
        run.train()
    del e
    gc.collect()
    assert held[0]() is None and run.state == "failed"
    monkeypatch.undo()
    run.subscribers.clear()
    assert same(run.resume(), whole)


@pytest.mark.parametrize("e,words", [(PermissionError(13, "Permission denied"), "no right to write"),
    (OSError(30, "Read-only file system"), "can only be read"), (OSError(107, "Transport endpoint is not connected"),
    "not mounted"), (ValueError("something else"), "")])
def test_words_for_failures(e, words, tmp_path):
    text = explain_failure(e, RECIPE, tmp_path, "checkpoint-8")
    assert words in text and bool(text) == bool(words) and (not words or "checkpoint-8" in text and "\n" not in text)


def test_a_file_system_that_knows_little(whole, tmp_path, monkeypatch):
    "A mounted Drive: folders cannot be renamed or synced, there are no hard links"
    rename, fsync = os.rename, os.fsync
    def no_folders(a, b, **kw):
        if Path(a).is_dir(): raise OSError(95, "Operation not supported")
        return rename(a, b, **kw)
    def no_folder_sync(fd):
        if Path(os.readlink(f"/proc/self/fd/{fd}")).is_dir(): raise OSError(22, "Invalid argument")
        return fsync(fd)
    monkeypatch.setattr(os, "rename", no_folders)
    monkeypatch.setattr(os, "fsync", no_folder_sync)
    monkeypatch.setattr(os, "link", lambda *a, **k: 1/0)
    run = Run(RECIPE, tmp_path/"run")
    at(run, "step", 5, run.pause).train()
    assert not [p for p in checkpoints(run.path) if find_damage(p)] and len(checkpoints(run.path)) == 2
    run.subscribers.clear()
    assert same(run.resume(), whole) and not [p.name for p in run.path.iterdir() if p.name.startswith(".")
        or ".new" in p.name or ".old" in p.name]


def test_a_folder_that_was_being_replaced_is_mended(tmp_path):
    with whole_folder(tmp_path/"a") as new: (new/"x").write_text("old")
    os.rename(tmp_path/"a", tmp_path/"a.old")
    with pytest.raises(ValueError):
        with whole_folder(tmp_path/"a"): raise ValueError
    assert (tmp_path/"a"/"x").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


# ---- the Hub, trackers, figures, clones

class Hub:
    "Keeps commits in a folder, as the Hub would"
    def __init__(self, path): self.path, self.commits, self.private = path, [], None
    def create_repo(self, repo_id, private, exist_ok): self.private = private; return SimpleNamespace(repo_id=repo_id)
    def list_repo_files(self, repo_id):
        return [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]
    def create_commit(self, repo_id, operations, commit_message):
        time.sleep(.05)
        for o in operations:
            to = self.path/o.path_in_repo
            if not hasattr(o, "path_or_fileobj"): shutil.rmtree(to); continue
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(o.path_or_fileobj if isinstance(o.path_or_fileobj, bytes)
                else Path(o.path_or_fileobj).read_bytes())
        self.commits.append(commit_message)


def test_gone_on_with_from_the_hub(whole, tmp_path, monkeypatch):
    import huggingface_hub
    hub = Hub(tmp_path/"hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    run = Run(RECIPE.replace(hub_model_id="me/run"), tmp_path/"run")
    at(run, "step", 5, run.pause).train()
    assert hub.private is True and hub.commits[-1] == "checkpoint-5" and [p.name
        for p in checkpoints(hub.path)] == ["checkpoint-5"] and not find_damage(hub.path/"checkpoint-5")
    assert (hub.path/"adapter"/"adapter_config.json").exists() and (hub.path/"README.md").exists()
    beside = [p.name for p in files_beside(run.path/"adapter")]
    assert {"asking.json", "tokenizer.json"} <= {*beside} and all((hub.path/"adapter"/o).exists() for o in beside)
    there = Run.open(shutil.copytree(hub.path, tmp_path/"elsewhere"))
    assert there.steps == 5 and same(there.resume(), whole) and hub.commits[-1] == "checkpoint-6"


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    import huggingface_hub
    hub = Hub(tmp_path/"hub")
    hub.create_commit = lambda *a, **k: (_ for _ in ()).throw(ConnectionError("the network is gone"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    run = Run(RECIPE.replace(hub_model_id="me/run", max_steps=2), tmp_path/"run").train()
    assert run.state == "done" and "upload to me/run failed (the network is gone)" in notes(run) and not find_damage(run.path/"checkpoint-2")
    hub.create_repo = lambda *a, **k: (_ for _ in ()).throw(ConnectionError("401: not logged in"))
    with pytest.raises(RecipeError, match="hub_model_id.*401.*login"):
        Run(RECIPE.replace(hub_model_id="me/run"), tmp_path/"other").train()
    assert not (tmp_path/"other").exists()


def test_a_tracker_that_is_not_there(tmp_path, monkeypatch):
    import importlib.util
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in ("wandb", "mlflow", "trackio",
        "tensorboard", "tensorboardX") else find(name, *a))
    with pytest.raises(RecipeError, match="report_to: mlflow is not installed"):
        Run(RECIPE.replace(report_to="mlflow"), tmp_path/"run").train()
    assert not (tmp_path/"run").exists()


def test_a_tracker_is_told_the_same_stream(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path/"tb"))
    run = Run(RECIPE.replace(report_to="tensorboard"), tmp_path/"run").train()
    seen = EventAccumulator(str(tmp_path/"tb")).Reload()
    assert [round(o.value, 4) for o in seen.Scalars("train/loss")] == [round(e["loss"], 4) for e in run.of_type("step")]
    assert [o.step for o in seen.Scalars("eval/loss")] == [e["step"] for e in run.of_type("eval")]


@pytest.mark.parametrize("fails", [None, "on_log", "on_train_end"])
def test_a_tracker_ends_with_the_run_and_its_failure_does_not(whole, tmp_path, monkeypatch, fails):
    from transformers.integrations import integration_utils
    told = []
    class Tracker:
        def __getattr__(self, event):
            return lambda args, state, control, model=None, logs=None: self.tell(event, state.global_step, logs)
        def tell(self, event, step, logs):
            told.append((event, step, logs))
            random.random(); torch.rand(1)
            if event == fails: raise OSError("no network")
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", Tracker)
    monkeypatch.setattr("loranb.train.run.check_trackers", lambda recipe: None)
    run = Run(RECIPE.replace(report_to="mlflow"), tmp_path/"run").train()
    assert run.state == "done" and [e["loss"] for e in run.of_type("step")] == [e["loss"]
        for e in whole.of_type("step")] if fails else same(run, whole)
    events, notes = [o[0] for o in told], [e["message"] for e in run.of_type("note")]
    if fails == "on_log":
        assert events == ["on_train_begin", "on_log"] and notes == ["mlflow is told no more: OSError: no network"]
    else:
        assert events == ["on_train_begin"] + ["on_log"]*(6 + len(run.of_type("eval"))) + ["on_train_end"] and notes == ["mlflow could not be ended: OSError: no network"][:bool(fails)]


def test_a_tracker_that_cannot_begin(tmp_path, monkeypatch):
    from transformers.integrations import integration_utils
    def tracker(): raise ValueError("no API key")
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", tracker)
    monkeypatch.setattr("loranb.train.run.check_trackers", lambda recipe: None)
    with pytest.raises(RecipeError, match=r"report_to: wandb cannot begin \(ValueError: no API key\)\. Mend its "
            r"settings"):
        Run(RECIPE.replace(report_to="wandb"), tmp_path/"run").train()


def test_figures_by_step(whole, tmp_path):
    table = whole.history
    assert list(table.index) == list(range(1, 7)) and {"loss", "eval_loss", "learning_rate", "grad_norm", "tokens",
        "seconds", "memory", "memory_peak"} <= set(table.columns)
    assert table.grad_norm.gt(0).all() and table.memory_peak.is_monotonic_increasing and table.eval_loss.notna().sum() == 4 and table.learning_rate.iloc[1] > 0
    run, told = Run(RECIPE.replace(max_steps=2, save_steps=0), tmp_path/"run"), []
    at(run, "step", 2, lambda: run.emit("log", step=2, mine=.5, draw=torch.rand(1).item())).on(told.append).train()
    assert run.history.mine[2] == .5 and [e["type"] for e in told].index("log") == [e["type"]
        for e in told].index("step", [e["type"] for e in told].index("step") + 1) + 1
    assert run.of_type("step")[1]["loss"] == whole.of_type("step")[1]["loss"]


def test_the_norm_is_that_before_clipping(whole, tmp_path):
    free = Run(RECIPE.replace(max_grad_norm=0., max_steps=1), tmp_path/"free").train()
    tight = Run(RECIPE.replace(max_grad_norm=1e-3, max_steps=1), tmp_path/"tight").train()
    norms = [r.of_type("step")[0]["grad_norm"] for r in (whole, free, tight)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) == pytest.approx(norms[2], rel=1e-5) and norms[0] > 1e-3


def test_samples_at_intervals(whole): assert [e["step"] for e in whole.of_type("sample")] == [0, 3, 6]


def test_a_clone_and_one_that_starts_from_the_adapter(whole, tmp_path):
    other = whole.clone(tmp_path/"other", learning_rate=1e-3)
    assert (other.state, other.recipe, other.path.exists()) == ("ready", whole.recipe.replace(learning_rate=1e-3),
        False)
    more = whole.clone(tmp_path/"more", adapter=True, max_steps=2)
    more.train()
    assert more.of_type("step")[0]["loss"] < whole.of_type("step")[0]["loss"] and (more.path/"start"/"adapter_model.safetensors").read_bytes() == (whole.adapter.path/"adapter_model.safetensors").read_bytes()
    again = Run.open(shutil.copytree(more.path, tmp_path/"moved"))
    assert again.recipe.adapter_name_or_path == str(tmp_path/"moved"/"start")
    with pytest.raises(RecipeError, match="has r=2, and the recipe 4"):
        whole.clone(tmp_path/"odd", adapter=True, r=4, max_steps=2).train()
    with pytest.raises(RecipeError, match="no field"): whole.clone(steps=3)
    assert not (tmp_path/"odd").exists()


def test_what_a_run_killed_in_its_first_moment_has_left_is_taken_over(tmp_path):
    (tmp_path/"run").mkdir()
    for name in ("run.json", "data.jsonl", "recipe.yaml.part"): (tmp_path/"run"/name).write_text("half")
    (tmp_path/"run"/"run.lock").write_text(json.dumps(dict(pid=2**22 + 1, host=socket.gethostname(), began=1.)))
    assert Run(RECIPE.replace(max_steps=1), tmp_path/"run").train().state == "done"
    assert Run.open(tmp_path/"run").recipe.max_steps == 1


# ---- the long ones, in short

@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    "A dozen steps instead of forty; `python tests/soak/kill.py` is the hundred kills"
    done = subprocess.run([sys.executable, str(Path(__file__).parent/"soak"/"kill.py"), "--kills", "4", "--steps", "8",
        "--seed", str(int(time.time()))], capture_output=True, text=True)
    assert done.returncode == 0 and "4 kills, 0 wrong" in done.stdout, done.stdout + done.stderr


# ---- what a user may do to a run's folder, and to its data

def test_a_lock_that_could_not_be_taken_away_holds_nobody(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="the good message"):
        with Lock(tmp_path):
            monkeypatch.setattr(Path, "unlink", lambda self,
                missing_ok=False: (_ for _ in ()).throw(PermissionError(13, "no right")))
            raise RecipeError("the good message")
    monkeypatch.undo()
    assert (tmp_path/"run.lock").exists() and who_works_in(tmp_path) is None
    with Lock(tmp_path): assert who_works_in(tmp_path) == this_process()


def test_a_run_knows_its_rows(tmp_path, monkeypatch):
    (tmp_path/"a").mkdir(); (tmp_path/"b").mkdir()
    monkeypatch.chdir(tmp_path/"a")
    for n in ("a", "b"):
        (tmp_path/n/"rows.jsonl").write_text("".join(json.dumps(dict(prompt=f"{n} {i} =", completion=f" {i}")) + "\n"
            for i in range(40)))
    run = Run(RECIPE.replace(data="rows.jsonl"), tmp_path/"run")
    at(run, "step", 3, run.stop).train()
    monkeypatch.chdir(tmp_path/"b")
    again = Run.open(tmp_path/"run")
    assert again.recipe.data == str(tmp_path/"a/rows.jsonl")
    (tmp_path/"a/rows.jsonl").write_text((tmp_path/"b/rows.jsonl").read_text())
    with pytest.raises(RecipeError, match="holds other rows than when the run began"): again.resume()
    assert again.steps == 3 and newest_whole(again.path)[0].name == "checkpoint-3"


def test_the_held_out_loss_needs_rows(tmp_path):
    with pytest.raises(RecipeError, match="load_best_model_at_end goes by the held-out loss, and of 5 rows none is "
            "held out"):
        Run(RECIPE.replace(data=ROWS[:5], load_best_model_at_end=True, eval_steps=2, test_size=4),
            tmp_path/"run").train()
    assert not (tmp_path/"run").exists()


@pytest.mark.parametrize("changes", [dict(lr_scheduler_kwargs=dict(foo=1)),
    dict(lr_scheduler_type="polynomial", lr_scheduler_kwargs=dict(lr_end=1.))])
def test_a_schedule_that_does_not_take_its_arguments(tmp_path, changes):
    with pytest.raises(RecipeError, match="lr_scheduler_kwargs: the schedule '.*' does not take"):
        Run(RECIPE.replace(**changes), tmp_path/"run").train()
    assert not (tmp_path/"run").exists()


def test_who_breaks_off_has_stopped(tmp_path):
    def interrupt(): raise KeyboardInterrupt
    run = Run(RECIPE, tmp_path/"run")
    with pytest.raises(KeyboardInterrupt): at(run, "step", 3, interrupt).train()
    assert run.state == Run.open(run.path).state == "stopped" and run.events[-1]["message"] == "interrupted"


def test_what_is_no_recipe_and_no_folder(tmp_path):
    with pytest.raises(RecipeError, match="recipe: give a Recipe, such as"): Run(ROWS)
    (tmp_path/"file").write_text("mine")
    with pytest.raises(RecipeError, match=r"is in use already\. Give another folder\.$"):
        Run(RECIPE, tmp_path/"file").train()
    assert Run(RECIPE, "~/x").path == Path.home()/"x"
