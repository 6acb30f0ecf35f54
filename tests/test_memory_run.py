"A run's memory: measured beside predicted, the longest batch tried first without a trace, and what is left after memory has ended."
import gc, weakref

import pytest, torch

from loranb.train.measure import drop_frames, bytes_held
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.models.keeping import random_states
from loranb.train.observer import Observer
from loranb.train.run import Run

SHORT = Recipe(r=4, max_steps=3, per_device_train_batch_size=4, test_size=4, eval_steps=0, lora_dropout=.1)


def weights(run): return {n: p.detach().clone() for n, p in run.model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_the_trial_leaves_no_trace(tmp_path):
    runs = {}
    for name, probing in (("plain", False), ("tried", True)):
        run = Run(SHORT, tmp_path/name)
        run.probing = probing
        runs[name] = weights(run.train()), [e["loss"] for e in run.of_type("step")]
    assert runs["plain"][1] == runs["tried"][1]
    for n, p in runs["plain"][0].items(): assert torch.equal(p, runs["tried"][0][n]), n


@pytest.mark.parametrize("optim", ["adamw_8bit", pytest.param("paged_adamw_8bit", marks=pytest.mark.slow)])
def test_the_trial_puts_everything_back(optim, tmp_path, monkeypatch):
    seen, real = [], Observer.try_longest
    def state(run):
        return [p.detach().clone() for p in run.model.parameters()
            if p.requires_grad], random_states(), repr([{k: v for k, v in g.items() if k != "params"}
            for g in run.trainer.optimizer.param_groups])
    def first_try(self):
        before = state(self)
        real(self)
        after, states = state(self), [v for s in self.trainer.optimizer.state.values() for k,
            v in s.items() if torch.is_tensor(v) and "qmap" not in k]
        assert all(map(torch.equal, before[0], after[0])) and before[2] == after[2] and before[1][0] == after[1][0] and torch.equal(before[1][2], after[1][2])
        assert all(p.grad is None for p in self.model.parameters()) and not any(v.any() for v in states)
        seen.append(len(states))
    monkeypatch.setattr(Observer, "try_longest", first_try)
    run = Run(SHORT.replace(optim=optim, max_steps=1), tmp_path/"run")
    run.probing = True
    run.train()
    assert len(seen) == 1 and (seen[0] > 0) == optim.startswith("paged"), "paged states stay where they are, at zero, which shows that there was a step"


def test_a_run_knows_its_memory(tmp_path):
    run = Run(SHORT, tmp_path/"run").train()
    m = run.memory
    assert m["device"] == "cpu" and m["measured"] >= m["before"] > 0 and m["predicted"] > 0 and abs(m["error"]) < 1
    assert m["parts"]["adapter"] == 4*sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert m["parts"]["weights"] > 0 and m["parts"]["constants"] > 0 and m["parts"]["optimizer"] > m["parts"]["adapter"]
    for k in ("weights", "constants", "adapter", "optimizer"):
        assert m["parts"][k] == pytest.approx(m["planned"][k], abs=200), k
    assert Run.open(run.path).memory == m and "by the plan" in run._repr_html_() and "by the plan" in run.report().read_text()


@pytest.mark.parametrize("probing,words", [(True, "before the first step, on the longest rows"),
    pytest.param(False, "in step 2", marks=pytest.mark.slow)])
def test_out_of_memory_gives_it_back_and_names_a_rung(probing, words, tmp_path, monkeypatch):
    alive, real = [], Run._build

    def build(self):
        trainer = real(self)
        compute = trainer.compute_loss
        def compute_loss(model, inputs, *args, **kw):
            loss, activations = compute(model, inputs, *args, **kw), torch.ones(1000)
            if probing or trainer.state.global_step == 1:
                alive.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss
        trainer.compute_loss = compute_loss
        return trainer

    monkeypatch.setattr(Run, "_build", build)
    run = Run(SHORT.replace(save_steps=1), tmp_path/"run")
    run.probing = probing
    with pytest.raises(RecipeError, match=f"out of memory {words}. Take "
            "recipe.replace\\(gradient_checkpointing=True\\)") as e:
        run.train()
    gc.collect()
    assert alive and all(ref() is None for ref in alive), "the frames of the failed step hold its tensors"
    assert run._model is None and run.state == "failed" and "free again" in str(e.value)


def test_held_counts_a_storage_once():
    w = torch.nn.Parameter(torch.ones(8, 8), requires_grad=False)
    model = torch.nn.Module()
    model.a, model.b = w, torch.nn.Parameter(w[:4], requires_grad=False)
    assert bytes_held(model)["weights"] == 256
    drop_frames(ValueError())


def test_a_classifiers_memory_is_measured_beside_its_plan(tmp_path):
    rows = [dict(text=f"The dog is {w} {i}.", label=l) for i in range(20) for w, l in (("good", "yes"), ("bad", "no"))]
    memory = Run(SHORT.replace(task_type="SEQ_CLS", data=rows), tmp_path/"run").train().memory
    assert memory["measured"] > 0 and memory["error"] == memory["predicted"]/memory["measured"] - 1
    for k in ("weights", "constants", "adapter", "optimizer"): assert memory["parts"][k] == memory["planned"][k] > 0, k
