"""The meter: right values, nothing disturbed, nothing lost"""
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loranb.spectra.factors import read_factors
from loranb.train.meter import Meter
from loranb.core.recipe import Recipe
from loranb.runs.logs import read_frames, write_frame
from loranb.runs.record import Record
from loranb.spectra.spectra import Spectra
from loranb.train.observer import Observer
from loranb.train.run import Run
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1)


def tiny(**kw):
    torch.manual_seed(0)
    return get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], **kw))


def steps(model, n, meter=None, seed=1, checkpointing=False, accumulate=1):
    "Train `n` steps, with or without a meter; the losses, and what the meter found after each"
    torch.manual_seed(seed)
    model.train()
    if checkpointing: model.gradient_checkpointing_enable(dict(use_reentrant=False)); model.enable_input_require_grads()
    optimizer, out = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2), []
    frames = []
    for step in range(1, n + 1):
        if meter: meter.begin(step, step == n)
        for _ in range(accumulate):
            ids = torch.randint(64, (2, 12))
            loss = model(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids)).loss
            loss.backward()
            out.append(loss.item())
        if meter: meter.gradients()
        optimizer.step()
        optimizer.zero_grad()
        if meter: frames.append(meter.end(step, .01))
    return out, frames


@pytest.mark.parametrize("kw", [dict(), dict(checkpointing=True), dict(accumulate=3)])
def test_a_meter_changes_nothing(kw):
    with_meter, without = tiny(lora_dropout=.2), tiny(lora_dropout=.2)
    meter = Meter(with_meter, every=1)
    losses, frames = steps(with_meter, 4, meter, **kw)
    assert losses == steps(without, 4, **kw)[0]
    assert all(torch.equal(a, b) for a, b in zip(with_meter.parameters(), without.parameters()))
    assert len(frames) == 4 and all(frames)
    assert not any(o._forward_hooks or o._forward_pre_hooks for o in with_meter.base_model.model.modules()
        if "lora_A" in type(o).__name__)


def test_frames_are_dense_spectra():
    model = tiny()
    meter = Meter(model, every=1)
    before = {f.name: f.A.clone() for f in read_factors(model)}
    sigma, columns = steps(model, 5, meter)[1][-1]
    for f, s, e, drift, kept in zip(read_factors(model), sigma, columns["error"], columns["drift"],
            columns["retention"]):
        D, A0 = f.delta(), before[f.name].double()
        true = torch.linalg.svdvals(D)[:4].numpy()
        assert np.abs(s - true).max() <= (e + 1e-6)*true[0]
        P = torch.linalg.pinv(A0) @ A0
        assert kept == pytest.approx(float((D @ P).square().sum()/D.square().sum()), rel=1e-5)
        assert drift == pytest.approx(float((f.A.double() - A0).norm()/A0.norm()), rel=1e-5)


def test_after_one_step_all_lies_in_the_first_row_space():
    model = tiny()
    meter = Meter(model, every=1)
    (_, columns), = steps(model, 1, meter)[1]
    assert np.allclose(columns["retention"], 1, atol=1e-6)


def test_the_columns_of_the_data_are_those_of_functional():
    model = tiny()
    meter = Meter(model, every=2)
    frames = [f for f in steps(model, 4, meter)[1] if f]
    assert len(frames) == 3, "the first, the second and the fourth step"
    for sigma, columns in frames:
        assert np.isfinite(columns["share"]).all() and (columns["share"]
            >= 0).all() and np.isfinite(columns["effect"]).all()
    assert (columns["share"] > 0).all() and (np.diff(columns["aware"], axis=1) <= 1e-7).all()


@pytest.mark.parametrize("cost,second", [(.03, .1), (.001, .1), (.5, .1)])
def test_the_pace_keeps_its_share(cost, second):
    meter, at = Meter(tiny()), []
    for step in range(1, 2001):
        if meter.due(step):
            at.append(step)
            meter.measured, meter.newest, meter.spent = meter.measured + 1, step, meter.spent + cost
        meter.elapsed += second
    assert at[0] == 1 and len(at) > 3 and meter.spent/meter.elapsed <= .02 + cost/meter.elapsed
    assert len(at) <= 600


@pytest.mark.parametrize("every,steps_", [(0, [7]), (3, [1, 3, 6, 7]), (1, [1, 2, 3, 4, 5, 6, 7])])
def test_the_reader_chooses(every, steps_):
    meter = Meter(tiny(), every=every)
    assert [s for s in range(1, 8) if meter.due(s, s == 7)] == steps_


def test_a_planless_stop_is_measured():
    model = tiny()
    meter = Meter(model, every=0)
    meter.begin(1)
    sigma, columns = meter.end(1, .1, now=True)
    assert "share" not in columns and not sigma.any()


def test_a_measurement_leaves_no_thread_behind():
    "A second thread that computes has a team of its own, which makes every later step of this one wait for its threads"
    before = threading.active_count()
    steps(tiny(), 2, Meter(tiny(), every=1))
    assert threading.active_count() == before


def test_a_torn_frame_is_left_out(tmp_path):
    for s in (1, 2): write_frame(tmp_path, s, dict(sigma=np.ones((3, 2)), share=np.ones(3)))
    whole = (tmp_path/"spectra.bin").read_bytes()
    for cut in range(1, 36):
        (tmp_path/"spectra.bin").write_bytes(whole[:-cut])
        assert [s for s, _ in read_frames(tmp_path)] == [1]
    (tmp_path/"spectra.bin").write_bytes(whole)
    with open(tmp_path/"spectra.jsonl", "a") as f: f.write('{"step": 3, "at"')
    assert [s for s, _ in read_frames(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_columns_go_on_after_a_stop_as_if_nothing_had_been(tmp_path):
    recipe = Recipe(r=4, max_steps=6, spectra_steps=2, eval_steps=0, save_steps=0, test_size=0,
        per_device_train_batch_size=4)
    whole = Run(recipe, tmp_path/"whole").train()
    run = Run(recipe, tmp_path/"stopped")
    run.on(lambda e: e["type"] == "step" and e["step"] == 4 and run.stop())
    run.train()
    again = Run.open(run.path)
    again.resume()
    for (s, a), (t, b) in zip(whole.spectra_history, Record.open(run.path).spectra_history, strict=True):
        assert s == t and all(np.array_equal(x.astype("f4"), y.astype("f4")) for x, y in zip(a.sigma, b.sigma))
        assert a.columns.keys() == b.columns.keys() and all(np.array_equal(v, b.columns[k], equal_nan=True) for k,
            v in a.columns.items())


def test_alarms_are_told_once(tmp_path):
    run = Run(Recipe(r=2), tmp_path/"run")
    run.path.mkdir()
    observer = object.__new__(Observer)
    observer.run, observer.meter = run, SimpleNamespace(spent=0.)
    observer.modules = [dict(name=f"layers.{i}.q", m=8, n=8, r=2, scaling=1., error=0.) for i in range(3)]
    for step in range(10, 60, 10):
        sigma = np.array([[1., .5], [0, 0], [1., .9 if step < 50 else .01]])
        observer.add_frame(step, sigma, dict(drift=np.array([.5, .5, .5])))
    told = run.of_type("alarm")
    assert [(e["step"], e["kind"], e["modules"]) for e in told] == [(20, "still", ["layers.1.q"]),
        (50, "spike", ["layers.2.q"])]
