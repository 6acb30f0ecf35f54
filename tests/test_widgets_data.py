"The Studio's data: columns, tokens and findings follow the recipe, and errors of the data wait for a tick. Without a kernel or a browser."
import json

import pytest
from loranb import DataError, doctor
from loranb.core.recipe import Recipe
from loranb.widgets.studio import Studio

ROWS = [dict(id=i, theirs=f"Translate to French: It is {i}.", ours=f"C'est {i}. <script>alert(1)</script>")
    for i in range(30)]


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    "A Studio on a file whose columns have no known name"
    path = tmp_path_factory.mktemp("data")/"faq.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return Studio(Recipe(data=str(path)))


def learned(studio): return "".join(text for text, kind, *_ in studio.rows.tokens if kind.endswith("learned"))
def click(panel, **traits): panel.set_state(dict(traits, message=""))


def test_columns_are_chosen_and_the_mask_follows(studio):
    c = studio.columns
    assert c.names == ["id", "theirs", "ours"] and c.examples[0] == ["0", "Translate to French: It is 0.",
        "C'est 0. <script>alert(1)</script>"]
    assert c.format == "not recognized" and not c.sound and "are not known as a format" in c.message and studio.rows.tokens == []
    click(c, columns=dict(user="theirs"))
    assert "makes no row" in c.message and not c.sound and studio.recipe.columns == dict(user="theirs")
    click(c, columns=dict(user="theirs", assistant="ours"))
    assert c.sound and c.message == "" and c.total == 30 and learned(studio).strip().startswith("C'est 0.")
    assert "columns={'user': 'theirs', 'assistant': 'ours'}" in studio.code.python and "assistant: ours" in studio.code.yaml
    click(c, columns=dict(user="ours", assistant="theirs"))
    assert learned(studio).strip().startswith("Translate")
    click(c, columns={})
    assert not c.sound and studio.rows.tokens == [] and studio.rows.total == 0


def test_a_recognized_format_is_shown_as_recognized(studio):
    studio.edit(data="petit/translate", columns={})
    assert studio.columns.sound and studio.columns.format == "messages" and studio.columns.taken == dict(messages="messages")


def test_tokens_lengths_and_shares_follow_what_is_learned_and_cut(studio):
    studio.edit(data="petit/chat", columns={}, max_length=256)
    few, whole = studio.rows.shares["learned"], studio.rows.lengths
    click(studio.rows, train_on="all")
    assert studio.recipe.train_on == "all" and studio.rows.shares["learned"] > .9 > few
    studio.settings.set_state(dict(max_length=50, message=""))
    assert studio.rows.lengths["limit"] == 50 and sum(studio.rows.lengths["cut"]) > sum(whole["cut"]) == 0
    click(studio.rows, order="truncated", place=0)
    assert studio.rows.row == studio.preview.order("truncated")[0] + 1 and any(k.endswith("truncated") for _, k,
        *_ in studio.rows.tokens)
    click(studio.rows, packing=True)
    assert studio.recipe.packing and "Packed" in studio.rows.reading
    studio.edit(packing=False, train_on="assistant", max_length=256)


def test_a_source_that_cannot_be_read_is_refused_and_the_old_one_stays(studio, tmp_path):
    old = studio.recipe.data
    (tmp_path/"x.zip").write_bytes(b"PK\x03\x04")
    click(studio.columns, data=str(tmp_path/"x.zip"))
    assert studio.recipe.data == old and studio.columns.names == ["messages"] and "zip archive" in studio.columns.message


def test_rows_from_memory(studio):
    pd = pytest.importorskip("pandas")
    for data in (ROWS, pd.DataFrame(ROWS)):
        s = Studio(Recipe(data=data, columns=dict(user="theirs", assistant="ours")))
        assert s.columns.total == 30 and s.columns.get_state("data")["data"] == "30 rows" and learned(s).strip().startswith("C'est") and repr(s)
        s.edit(r=4)
        assert s.columns.total == 30


@pytest.fixture(scope="module")
def ill():
    "A Studio on 700 rows: one cannot be read, most lose their answers, two are the same"
    rows = [dict(prompt=f"Tell me about {i}, {'please, '*(i % 50)}now:", completion=f" It is {i}.") for i in range(700)]
    rows[3] = dict(prompt=None, completion="x")
    rows[650] = dict(rows[649])
    return Studio(Recipe(data=rows, max_length=24, max_steps=2, test_size=4, r=2, quant="none", save_steps=0))


def test_errors_stand_in_the_way_until_they_are_mended_or_acknowledged(ill, tmp_path):
    d = ill.doctor
    assert {"bad-rows", "nothing-learned"} <= set(d.open_errors()) and "✗" in ill.flow.items[3][1] and (d.looked,
        d.total) == (500, 699)
    with pytest.raises(DataError, match="row 4"): ill.train(str(tmp_path/"a"))
    click(d, acknowledged=["bad-rows"])
    assert ill.recipe.acknowledged == ["bad-rows"] and "acknowledged=['bad-rows']" in ill.code.python and "bad-rows" not in d.open_errors()
    with pytest.raises(DataError, match="To start all the same"): ill.train(str(tmp_path/"b"))
    assert d.looked == 699 and not list((tmp_path/"b").glob("adapter*")), "a run looks at all rows before anything is loaded, and the panel shows what it found"
    ill.settings.set_state(dict(max_length=256, message=""))
    assert d.open_errors() == [] and d.looked == 500 and "✓" in ill.flow.items[3][1]


def test_a_row_is_reached_by_its_number_although_one_is_left_out(ill):
    ill._asked(dict(kind="row", row=5))
    assert ill.rows.row == 5 and ill.rows.place == 3 and "about 4," in "".join(t for t,
        *_ in ill.rows.tokens).replace("▁", " ")
    ill._asked(dict(kind="row", row=4))
    assert ill.rows.row == 5 and "there is no row 4" in ill.rows.message


def test_all_rows_are_looked_at_when_asked(ill):
    assert not any(f["code"] == "duplicates" for f in ill.doctor.findings), "the equal rows lie beyond the first 500"
    ill.look_at_all()
    assert ill.doctor.looked == 699 and any(f["code"] == "duplicates"
        for f in ill.doctor.findings) and "all 699 rows" in ill.preview.text() and ill.doctor.busy == ""


def test_another_data_set_has_its_own_columns_and_nothing_acknowledged(ill):
    ill.edit(data="petit/translate")
    assert ill.recipe.acknowledged == [] and ill.recipe.columns == {} and ill.doctor.acknowledged == [] and ill.columns.sound


def test_the_panel_and_the_function_find_the_same(ill):
    found = doctor(ill.recipe)
    ill.look_at_all()
    assert [(f["code"], f["count"], tuple(f["rows"])) for f in ill.doctor.findings] == [(f.code, f.count, f.rows)
        for f in found]
