"The preview: the trainer's tokens and no others, exact shares, escaped text"
import html, itertools, math, re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from loranb.data import previews
from loranb.data.batches import best_fit, collate
from loranb.data.encoding import prepare, tokens
from loranb.data.chips import chips_html, chips_text
from loranb.data.previews import (ORDERS, Preview, length_bins, lengths_reading, lengths_svg, longest_odds,
    padding_share, preview)
from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.widgets.data.rows import RowsPanel

KINDS = ["learned", "context", "special", "special-learned", "truncated", "special-truncated", "padding"]
HOSTILE = [dict(prompt="<script>alert(1)</script>", completion="<img src=x onerror=alert(1)>"),
    dict(prompt="a\"'><b>", completion="\u202e</details></div>\n\x00&lt;")]


def labels(chips): return [i if kind.endswith("learned") else -100 for _, kind, i, *_ in chips]
def tags(text): return re.findall(r"<[^>]*>", text)


@pytest.fixture(scope="module")
def short():
    "A recipe that cuts, and its preview"
    recipe = Recipe(data="petit/chat", max_length=50, per_device_train_batch_size=4)
    return recipe, preview(recipe, 60)


@pytest.mark.parametrize("changes", [dict(), dict(train_on="all"), dict(train_on="last", data="petit/summarize")])
def test_every_chip_is_what_the_trainer_gets(changes):
    recipe = Recipe(**{**dict(data="petit/chat", max_length=50, test_split="test", split="train[:60]"), **changes})
    seen, trained = preview(recipe), tokens(recipe)
    kept = [i for i in range(60) if seen.learned[i]]
    assert changes or len(kept) < 60, "the cut must leave some rows without anything to learn, or this shows little"
    for e, i in zip(trained, kept, strict=True):
        chips = [c for c in seen.chips(i) if c[1] not in ("truncated", "special-truncated", "padding")]
        assert [c[2] for c in chips] == e["input_ids"] and labels(chips) == e["labels"]


def test_padding_chips_are_what_a_batch_is_filled_with(short):
    _, seen = short
    rows = [seen.encoded(i) for i in range(4)]
    batch = collate(rows, seen.tok.pad_token_id)
    for row, e in zip(batch["input_ids"].tolist(), rows):
        assert row[len(e.input_ids):] == [seen.tok.pad_token_id]*(len(row) - len(e.input_ids))
    assert {c[2] for i in range(60) for c in seen.chips(i) if c[1] == "padding"} == {seen.tok.pad_token_id}


def test_packing_and_grouping_leave_less_padding_and_the_words_say_it(short):
    assert "packing" not in short[1].reading(), "rows of 45 tokens in 50 are not promised anything by packing"
    recipe = short[0].replace(data="petit/translate", max_length=128)
    seen = preview(recipe, 60)
    packs = best_fit(seen.trained, 128)
    now, packed, grouped = seen.padded(False), seen.padded(True), seen.padded(False, True)
    assert packed < now and grouped < now and math.isclose(packed, padding_share([sum(seen.trained[p]) for p in packs],
        4))
    drawn = [seen.trained[np.random.default_rng(i).permutation(len(seen.trained))[:4]] for i in range(3000)]
    assert abs(now - (1 - sum(d.sum() for d in drawn)/sum(4*d.max() for d in drawn))) < .01
    other = lambda **k: Preview(recipe.replace(**k), seen.rows, seen.tok, 60)
    assert "packing would leave" in seen.reading() and "Packed, in batches of 4" in other(packing=True).reading() and "Sorted by length" in other(group_by_length=True).reading()
    assert not any(c[1] == "padding" for c in other(packing=True).chips(0))


@pytest.mark.parametrize("changes", [dict(), dict(packing=True, max_length=128), dict(test_split="test"),
    dict(min_length=30), dict(drop_overlong=True, max_length=45), dict(test_size=.3, deduplicate=True)], ids=str)
def test_a_pass_is_as_long_as_the_trainers(changes):
    "Rows held out are not in it, nor rows that are left out; packed rows count once"
    rows = [dict(prompt="word "*(n % 40 + 1), completion=f"answer {n % 150}") for n in range(200)]
    recipe = Recipe(**{**dict(data=rows, max_length=50, test_size=20), **changes})
    if "test_split" in changes: recipe = recipe.replace(data="petit/chat", split="train[:90]")
    seen = preview(recipe, 0)
    trained = len(prepare(recipe, seen.tok).train)
    assert seen.sequences() == trained and trained != len(seen.rows)
    assert abs(preview(recipe, 80).sequences() - trained) <= max(6, .12*trained), "the others are like the first"


def test_the_tail_is_the_rest_of_the_row(short):
    recipe, seen = short
    longer = Preview(recipe.replace(max_length=500), seen.rows, seen.tok, 60)
    for i in range(60):
        chips = [c for c in seen.chips(i) if c[1] != "padding"]
        assert [c[2] for c in chips] == list(longer.encoded(i).input_ids)
        assert [c[1].endswith("truncated") for c in chips] == [at >= 50
            for at in range(len(chips))] and seen.cut[i] == max(len(chips) - 50, 0)


@given(lengths=st.lists(st.integers(0, 5000), max_size=60), limit=st.one_of(st.none(), st.integers(1, 5000)))
@settings(max_examples=40, deadline=None)
def test_the_histogram_counts_every_row_once(lengths, limit):
    bins = length_bins(lengths, limit)
    assert sum(bins["kept"]) + sum(bins["cut"]) == len(lengths) and sum(bins["cut"]) == sum(l > (limit or math.inf)
        for l in lengths)
    assert len(bins["kept"]) == len(bins["cut"]) <= 49 and lengths_svg(bins).startswith("<svg") and f"{len(lengths):,} rows" in (lengths_reading(bins) if lengths else "0 rows")
    if lengths and not bins["open"]: assert max(lengths) < len(bins["kept"])*bins["width"]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7), batch=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_padding_is_that_of_all_batches_there_can_be(lengths, batch):
    every = [max(c) for c in itertools.combinations(lengths, min(batch, len(lengths)))]
    assert math.isclose(padding_share(lengths, batch), 1 - np.mean(lengths)/np.mean(every),
        abs_tol=1e-9) and math.isclose(longest_odds(len(lengths), batch).sum(), 1)


def test_odds_of_many_rows_are_finite():
    odds = longest_odds(200_000, 16)
    assert math.isclose(odds.sum(), 1, rel_tol=1e-6) and np.isfinite(odds).all()


def test_the_worst_rows_come_first(short):
    _, seen = short
    assert seen.order() == list(range(60))
    for by, key in (("longest", seen.length + seen.cut), ("truncated", seen.cut), ("unlearned", -seen.learned)):
        order = seen.order(by)
        assert sorted(order) == list(range(60)) and all(key[a] >= key[b] for a,
            b in zip(order, order[1:])) and by in ORDERS
    assert seen.learned[seen.order("unlearned")[0]] == 0
    with pytest.raises(RecipeError, match="order must be one of longest"): seen.order("worst")


def test_what_was_looked_at_is_said(short):
    recipe, seen = short
    assert "the first 60 of 4,000 rows" in seen.text() and "the first 60 of 4,000 rows" in seen._repr_html_()
    assert "all 60 rows" in Preview(recipe, seen.rows[:60], seen.tok, 0).text()
    assert len(seen.chips(3999)) and seen[3999], "rows beyond are made when asked for"
    for i in (-1, 4000):
        with pytest.raises(RecipeError, match="row: there is no row"): seen[i]


def test_shares_are_counted(short):
    recipe, seen = short
    rows = [[c for c in seen.chips(i) if c[1] != "padding"] for i in range(60)]
    n = sum(c[1].endswith("truncated") for r in rows for c in r)
    s = seen.shares()
    assert math.isclose(s["truncated"], n/sum(map(len, rows))) and math.isclose(s["learned"] + s["context"], 1)
    assert math.isclose(s["learned"], sum(c[1].endswith("learned") for r in rows for c in r)/(sum(map(len, rows)) - n))


@given(text=st.text(max_size=20), kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_any_text_stays_text(text, kind):
    drawn = chips_html([[text, kind, 1, *([3] if kind == "padding" else [])]])
    assert all(re.fullmatch(r"</?(div|bdi)( [^<>]*)?>|<br>", t) for t in tags(drawn)) and drawn.count("<bdi") == 1
    assert chips_text([[text, kind, 1]]).count("\n") == 0


def test_hostile_rows_in_preview_and_panel():
    recipe = Recipe(data=HOSTILE*8, test_size=0)
    seen = preview(recipe)
    panel = RowsPanel()
    panel.show(seen)
    for page in (seen._repr_html_(), seen[0], seen[1], panel.still()):
        assert not re.search(r"<(script|img|b)\b|<[^>]*\son\w+=", page,
            re.I) and "</details></div>" not in re.sub(r"</details></div>$", "", page)
    assert "alert(1)" in html.unescape(re.sub("<[^>]*>", "", seen._repr_html_())).replace("\u200b",
        "") or "alert" in seen.text()


def test_a_long_row_leaves_out_its_middle_and_says_so():
    chips = [["a", "context", 5]]*5000
    assert chips_html(chips, 300).count("<bdi") == 300 and "4,700 tokens more" in chips_html(chips, 300)


def test_a_classifier_learns_one_place_in_a_row():
    rows = [dict(text=f"{w} row {i}", label=w) for i in range(6) for w in ("good", "bad")]
    recipe = Recipe(data=rows, task_type="SEQ_CLS", max_length=6)
    seen, trained = preview(recipe), prepare(recipe, preview(recipe).tok)
    assert (seen.learned == 1).all() and {tuple(e.input_ids) for part in (trained.train, trained.test)
        for e in part[:]} == {tuple(e.input_ids) for e in seen.looked}
