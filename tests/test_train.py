"A run to the bit: twice, in two processes, stopped and resumed; and what it writes."
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest, torch

from loranb.core.recipe import Recipe
from loranb.runs.checkpoint import checkpoints
from loranb.runs.logs import read_frames
from loranb.train.run import Run

SLOW = pytest.mark.slow
RECIPE = Recipe(r=4, max_steps=8, spectra_steps=3, eval_steps=4, save_steps=4, test_size=8,
    per_device_train_batch_size=4, gradient_accumulation_steps=2, lora_dropout=.1)


def fingerprint(run): return hashlib.sha256((run.adapter.path/"adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory): return Run(RECIPE, tmp_path_factory.mktemp("runs")/"whole").train()


def test_twice_in_one_process(whole, tmp_path):
    torch.manual_seed(99)  # what another cell drew or seeded must not matter
    assert fingerprint(Run(RECIPE, tmp_path/"again").train()) == fingerprint(whole)


@pytest.mark.slow
def test_in_another_process(whole, tmp_path):
    RECIPE.to_yaml(tmp_path/"r.yaml")
    done = subprocess.run([sys.executable, "-c", "from loranb.cli import main; raise SystemExit(main())", "train",
        str(tmp_path/"r.yaml"), "--out", str(tmp_path/"run")], capture_output=True, text=True, check=True)
    assert fingerprint(Run.open(tmp_path/"run")) == fingerprint(whole)
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "done"


@pytest.mark.parametrize("at", [*(pytest.param(o, marks=SLOW) for o in (1, 3, 4)), 7])
def test_stopped_and_resumed(whole, tmp_path, at):
    run = Run(RECIPE, tmp_path/"run")
    run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == at else None).train()
    assert (run.state, run.steps, checkpoints(run.path)[-1].name) == ("stopped", at, f"checkpoint-{at}")
    run.subscribers.clear()
    torch.manual_seed(5)
    run.generate("Translate to French: the cat sleeps.")
    with torch.no_grad(): run.model.eval()(torch.tensor([[5, 6]]))  # outside loranb's care: may repack the base
    assert fingerprint(run.resume()) == fingerprint(whole) and run.state == "done"


@pytest.mark.parametrize("event", ["save", pytest.param("eval", marks=SLOW), pytest.param("spectra", marks=SLOW)])
def test_stop_that_arrives_between_steps(whole, tmp_path, event):
    run, steps = Run(RECIPE, tmp_path/"run"), []
    run.on(lambda e: run.stop() if e["type"] == event and e["step"] >= 3 else None)
    run.on(lambda e: steps.append(e["step"]) if e["type"] == "step" and run.state == "stopping" else None).train()
    assert run.state == "stopped" and not steps, "a step began after Stop"
    reopened = Run.open(run.path)
    assert fingerprint(reopened.resume()) == fingerprint(whole)


@pytest.mark.slow
def test_stop_before_the_first_step(whole, tmp_path):
    run = Run(RECIPE, tmp_path/"run")
    run.on(lambda e: run.stop() if e["type"] == "start" and e["step"] == 0 else None).train()
    assert (run.state, run.steps) == ("stopped", 0)
    run.subscribers.clear()
    assert fingerprint(run.resume()) == fingerprint(whole)


def test_measurements_change_nothing(whole, tmp_path):
    blind = Run(RECIPE.replace(spectra_steps=0, eval_steps=0, save_steps=0), tmp_path/"run").train()
    assert fingerprint(blind) == fingerprint(whole)


def test_events_and_frames(whole):
    again = Run.open(whole.path)
    assert again.events == whole.events and again.state == "done" and again.recipe == whole.recipe
    steps = whole.of_type("step")
    assert [e["step"] for e in steps] == list(range(1, 9))
    assert all(set(e) >= {"step", "loss", "learning_rate", "tokens", "seconds"} for e in steps)
    assert [s for s, _ in read_frames(whole.path)] == [1, 3, 6, 8] == [s for s, _ in again.spectra_history]
    assert (again.spectra.to_arrays()[1] == whole.spectra.to_arrays()[1]).all()
    assert all(ok for ok, _ in whole.checks)


def test_tokens_are_counted(whole):
    data = whole._data
    assert sum(e["tokens"] for e in whole.of_type("step")) <= sum(len(r.input_ids) for r in data.train)
    assert all(8*4 < e["tokens"] < 8*RECIPE.max_length for e in whole.of_type("step"))


def test_a_torn_last_line_is_left_out(whole, tmp_path):
    import shutil
    shutil.copytree(whole.path, tmp_path/"run")
    with open(tmp_path/"run"/"events.jsonl", "a") as f: f.write('{"type": "st')
    with open(tmp_path/"run"/"spectra.bin", "ab") as f: f.write(b"abc")
    assert Run.open(tmp_path/"run").events == whole.events


@pytest.mark.slow
def test_a_subscriber_that_fails_is_left_out(tmp_path, capsys):
    run = Run(RECIPE.replace(max_steps=2), tmp_path/"run").on(lambda e: 1/0).train()
    assert run.state == "done" and capsys.readouterr().err.count("is left out") == 1


@pytest.mark.slow
def test_rows_in_memory_are_kept_with_the_run(tmp_path):
    from datasets import Dataset
    rows = [{"prompt": f"{i} =", "completion": f" {i}"} for i in range(40)]
    run = Run(Recipe(data=Dataset.from_list(rows), r=2, max_steps=4, per_device_train_batch_size=4), tmp_path/"run")
    run.on(lambda e: run.stop() if e["type"] == "step" and e["step"] == 2 else None).train()
    again = Run.open(run.path)
    assert len(again._data.rows if again._data else again.resume()._data.rows) == 36
    assert fingerprint(again) == fingerprint(Run(Recipe(data=rows, r=2, max_steps=4, per_device_train_batch_size=4),
        tmp_path/"whole").train())


@pytest.mark.slow
def test_interrupt_is_a_request(whole, tmp_path):
    code = f"""
import sys, os, signal
from loranb.core.recipe import Recipe; from loranb.train.run import Run
run = Run(Recipe.from_yaml({str(whole.path/'recipe.yaml')!r}), {str(tmp_path/'run')!r})
run.on(lambda e: os.kill(os.getpid(), signal.SIGINT) if e['type'] == 'step' and e['step'] == 3 else None)
run.train(); print(run.state, run.steps)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["stopped", "3"], done.stderr
    assert "Traceback" not in done.stderr
    assert fingerprint(Run.open(tmp_path/"run").resume()) == fingerprint(whole)


def test_killed_and_resumed(whole, tmp_path):
    code = f"""
import os, signal
from loranb.core.recipe import Recipe; from loranb.train.run import Run
run = Run(Recipe.from_yaml({str(whole.path/'recipe.yaml')!r}), {str(tmp_path/'run')!r})
run.on(lambda e: os.kill(os.getpid(), signal.SIGKILL) if e['type'] == 'step' and e['step'] == 6 else None)
run.train()"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    run = Run.open(tmp_path/"run")
    assert run.state == "stopped"
    run.resume()
    assert fingerprint(run) == fingerprint(whole)
    assert [e["step"] for e in run.of_type("step")] == list(range(1, 9))


@pytest.mark.slow
def test_a_second_run_takes_the_first_ones_place(tmp_path):
    small = RECIPE.replace(max_steps=1, eval_steps=0)
    first = Run(small, tmp_path/"a").train()
    held = Run(small, tmp_path/"b").train()
    assert first._model is None
    answer = held.generate("Translate to French: the dog.")
    assert first.generate("Translate to French: the dog.") == answer


def test_accumulation_gives_the_same_gradient(tmp_path):
    one, many = (Run(RECIPE.replace(lora_dropout=0., max_steps=1, per_device_train_batch_size=b,
        gradient_accumulation_steps=a, learning_rate=1e-3, warmup_steps=0, eval_steps=0), tmp_path/f"{b}").train()
        for b, a in ((8, 1), (1, 8)))
    assert one.of_type("step")[0]["loss"] == pytest.approx(many.of_type("step")[0]["loss"], abs=1e-5)


@pytest.mark.parametrize("quant", ["int8", *(pytest.param(o, marks=SLOW) for o in ("fp4", "none", "nf4"))])
def test_every_quantization_trains(quant, tmp_path):
    run = Run(RECIPE.replace(quant=quant, max_steps=2, eval_steps=0), tmp_path/"run").train()
    assert run.state == "done" and all(ok for ok, _ in run.checks)


@SLOW
@pytest.mark.parametrize("at", [3, 4])
def test_stop_while_the_next_rows_are_fetched(tmp_path, monkeypatch, at):
    from loranb.train.guard import Guard
    # four steps an epoch
    recipe = RECIPE.replace(data=[{"prompt": f"{i} =", "completion": f" {i}"} for i in range(36)], test_size=4)
    end = fingerprint(Run(recipe, tmp_path/"whole").train())
    run = Run(recipe, tmp_path/"run")
    caller = lambda: sys._getframe(2).f_code.co_name
    monkeypatch.setattr(Guard, "poll", lambda self: run.stop() if caller() == "on_step_begin" and run.steps == at
        else None)
    run.train()
    assert (run.state, run.steps) == ("stopped", at)
    monkeypatch.undo()
    assert fingerprint(run.resume()) == end
