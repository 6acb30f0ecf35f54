"A table of positions ends where max_positions says, and a row that is longer is refused in one sentence before a step"
import pytest, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from loranb import Recipe, plan
from loranb.models import petit
from loranb.models.hub import load_tokenizer, quiet_libraries
from loranb.models.shapes import max_positions
from loranb.evaluate.answers import generate
from loranb.core.fields import RecipeError
from loranb.train.run import Run

GPT = dict(vocab_size=64, n_embd=32, n_layer=1, n_head=2)
BERT = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
WRITERS = dict(gpt2=dict(GPT, n_positions=24), gpt_bigcode=dict(GPT, n_positions=24),
    codegen=dict(GPT, n_positions=24, rotary_dim=4, n_head=4), gptj=dict(GPT, n_positions=24, rotary_dim=4),
    ctrl=dict(GPT, dff=64, n_positions=24), opt=dict(BERT, ffn_dim=64, word_embed_proj_dim=32,
    max_position_embeddings=24), biogpt=dict(BERT, max_position_embeddings=24),
    gpt_neo=dict(vocab_size=64, hidden_size=32, num_layers=1, num_heads=2, attention_types=[[["global"], 1]],
    max_position_embeddings=24), mpt=dict(vocab_size=64, d_model=32, n_layers=1, n_heads=2, max_seq_len=24))
ANY = dict(llama=dict(BERT), bloom=dict(vocab_size=64, hidden_size=32, n_layer=1, n_head=2),
    gpt_neox=dict(BERT, max_position_embeddings=24), falcon=dict(vocab_size=64, hidden_size=32, num_hidden_layers=1,
    num_attention_heads=2, alibi=True))
JUDGES = dict(bert=dict(BERT, max_position_embeddings=24), roberta=dict(BERT, max_position_embeddings=26,
    pad_token_id=1), distilbert=dict(vocab_size=64, dim=32, hidden_dim=64, n_layers=1, n_heads=2,
    max_position_embeddings=24), electra=dict(BERT, embedding_size=32, max_position_embeddings=24))


def built(kind, family, config):
    torch.manual_seed(0)
    with quiet_libraries(): return kind.from_config(AutoConfig.for_model(family, **config)).eval()

def runs(model, length):
    ids = torch.full((1, length), 5)
    try: model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError): return False
    return True


@pytest.mark.parametrize("kind,family", [(AutoModelForCausalLM, f) for f in WRITERS]
    + [(AutoModelForSequenceClassification, f) for f in JUDGES])
def test_the_table_ends_there(kind, family):
    model = built(kind, family, {**WRITERS, **JUDGES}[family])
    assert max_positions(model) == 24 and runs(model, 24) and not runs(model, 25)

@pytest.mark.parametrize("family", ANY)
def test_others_have_no_table(family):
    model = built(AutoModelForCausalLM, family, ANY[family])
    assert max_positions(model) is None and runs(model, 100)


@pytest.fixture
def folder(tmp_path):
    tok = load_tokenizer(petit.path())
    built(AutoModelForCausalLM, "gpt2", dict(GPT, vocab_size=len(tok), n_positions=48, bos_token_id=1,
        eos_token_id=2)).save_pretrained(tmp_path/"gpt2")
    tok.save_pretrained(tmp_path/"gpt2")
    return str(tmp_path/"gpt2")

def recipe(folder, **kw):
    return Recipe(model=folder, data=[dict(prompt=f"{i} and {i} and "*12, completion=f"{2*i}") for i in range(24)],
        quant="none", max_steps=1, test_size=.25, **kw)

def test_a_longer_row_is_refused_before_a_step(folder, tmp_path):
    words = "max_length: 64 tokens, but .* has 48 positions. Set max_length=48 or less."
    with pytest.raises(RecipeError, match=words): plan(recipe(folder, max_length=64)).peak
    with pytest.raises(RecipeError, match=words):
        Run(recipe(folder, max_length=64, train_on="all"), tmp_path/"run").train()
    assert plan(recipe(folder, max_length=48)).peak > 0

def test_a_prompt_that_leaves_no_room_is_cut_at_its_beginning(folder, tmp_path):
    run = Run(recipe(folder, max_length=48, acknowledged=["answer-cut"], train_on="all"), tmp_path/"run").train()
    assert run.state == "done" and len(run.of_type("sample")[-1]["rows"]) == 6
    tail = "six and seven and eight and nine"
    assert generate(run.model, run.tokenizer, "ten "*40 + tail, 8) == generate(run.model, run.tokenizer,
        "one "*40 + "ten "*40 + tail, 8)
