"The Studio's data: columns, tokens and findings follow the recipe, and errors of the data wait for a tick. Without a kernel or a browser."
import json

import pytest
from loranb.recipe import Recipe
from loranb.studio import Studio

ROWS = [dict(id=i, theirs=f"Translate to French: It is {i}.", ours=f"C'est {i}. <script>alert(1)</script>") for i in range(30)]


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
    assert c.names == ["id", "theirs", "ours"] and c.examples[0] == ["0", "Translate to French: It is 0.", "C'est 0. <script>alert(1)</script>"]
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
    assert studio.rows.row == studio.preview.order("truncated")[0] + 1 and any(k.endswith("truncated") for _, k, *_ in studio.rows.tokens)
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
