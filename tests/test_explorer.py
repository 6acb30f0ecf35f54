"""The explorer: any source, the same frames in every view, views on demand"""
import numpy as np
import pytest
import torch
from loranb import Explorer
from loranb.data.batches import collate
from loranb.data.encoding import prepare
from loranb.evaluate.watch import measure_directions
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.runs.record import Record
from loranb.spectra.spectra import Spectra
from loranb.train.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = Recipe(r=4, max_steps=6, spectra_steps=2, eval_steps=0, save_steps=0, test_size=8,
        per_device_train_batch_size=4)
    return Run(recipe, tmp_path_factory.mktemp("runs")/"run").train()


def batches(run):
    data = prepare(run.recipe, run.tokenizer)
    return [collate([data.test[i] for i in range(j, j + 4)], run.tokenizer.pad_token_id) for j in (0, 4)]


def test_a_run_its_folder_and_its_record_show_the_same(run):
    views = [Explorer(s).course for s in (run, run.path, str(run.path), Record.open(run.path))]
    assert all([f[0] for f in v._frames] == [1, 2, 4, 6] for v in views)
    for v in views[1:]:
        assert all(np.allclose(a[1], b[1]) and np.allclose(a[2], b[2]) for a, b in zip(v._frames, views[0]._frames))
    assert {k: [t for t, _ in rows] for k, rows in views[0]._columns.items()}["share"] == [1, 2, 4, 6]


def test_an_adapter_shows_what_its_spectra_are(run):
    for source in (run.adapter.path, run.model, Spectra.of(run.model)):
        e = Explorer(source)
        (step, sigma, band), = e.spectrum._frames
        assert step == 0 and np.isnan(band).all() and np.allclose(sigma, Spectra.of(run.adapter.path).to_arrays()[1],
            rtol=1e-4, atol=1e-6)
        assert e.map.text().startswith("Which layers learned? Most:")


def test_views_on_demand(run):
    e = Explorer(run)
    assert e.below.children == () and not e.trim.curves
    e.more[0].value = True
    assert [type(w).__name__ for w in e.below.children[0].children] == ["Directions"]
    e.more[1].value = True
    assert [type(w).__name__ for w in e.below.children[0].children] == ["Directions",
        "TrimAdvisor"] and list(e.trim.curves) == ["energy"]
    e.more[0].value = e.more[1].value = False
    assert e.below.children == () or list(e.below.children) == []


def test_advice_from_data_and_measured_cuts(run):
    e, model, rows = Explorer(run), run.model, batches(run)
    found = measure_directions(None, model, rows)
    e.advise(found)
    assert list(e.trim.curves) == ["energy", "output",
        "fisher"] and e.trim.rule == "fisher" and "functional=functional" in e.trim.line()
    before = torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])
    e.measure(model, rows)
    assert len(e.trim.measured) == sum(len(c[::3]) for c in e.trim.curves.values()) and all(kl >= -1e-6 for _, _,
        kl in e.trim.measured)
    assert torch.equal(before, torch.cat([p.flatten() for p in model.parameters() if p.requires_grad]))
    kept = eval(e.trim.line().removesuffix('.save("trimmed")'), dict(run=run, functional=found))
    assert kept.parameters[1] <= e.trim.curves["fisher"][e.trim.point][0]


def test_nothing_saved_is_said(tmp_path):
    e = Explorer()
    with pytest.raises(RecipeError, match="no adapter yet"): e.advise()
    e.more[1].value = True
    assert "no adapter yet" in e.below.children[0].children[0].value
