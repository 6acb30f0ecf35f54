"A name is never taken for another card, and every family that trains can be planned"
import pytest
from transformers import AutoConfig

from loranb import plan
from loranb.core.recipe import Recipe
from loranb.memory.gpus import find_gpu
from small import refusal

OTHERS = {"NVIDIA GeForce RTX 4090 Laptop GPU": "RTX 4090", "RTX 3080 12GB": "RTX 3080", "H20": "H200",
    "RTX 4090 48GB": "RTX 4090", "RTX 5060": "RTX 5060 Ti"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_card_that_is_not_in_the_table_is_refused_with_the_nearest(name):
    said = refusal(lambda: find_gpu(name))
    assert f"{name!r}" in said and OTHERS[name] in said


@pytest.mark.parametrize("size", [24, 48, 96])
def test_a_bare_size_is_a_card_of_that_size(size):
    card = find_gpu(f"{size}GB")
    assert card.memory == size and card.capability and .9*size*1e9 < card.usable < 1.08*size*1e9


SMALL = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, vocab_size=256,
    pad_token_id=0)
INPUTS = dict(head_dim=16, vocab_size_per_layer_input=256, hidden_size_per_layer_input=8)
ZAMBA = dict(num_hidden_layers=12, num_key_value_heads=4, layers_block_type=(["mamba"]*5 + ["hybrid"])*2,
    mamba_d_state=8, n_mamba_heads=2, mamba_ngroups=1, num_mem_blocks=1, use_mem_rope=True, adapter_rank=4,
    attention_head_dim=32)
FAMILIES = dict(gemma3n_text=INPUTS | dict(num_hidden_layers=10, intermediate_size=[128]*10, num_kv_shared_layers=4,
    laurel_rank=8, altup_num_inputs=2, activation_sparsity_pattern=[0.]*10,
    layer_types=(["sliding_attention"]*4 + ["full_attention"])*2), gemma4_text=INPUTS | dict(num_hidden_layers=12,
    global_head_dim=16), phimoe=dict(num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2),
    recurrent_gemma=dict(num_hidden_layers=3, num_key_value_heads=1, lru_width=64, attention_window_size=32),
    zamba2=ZAMBA)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_trains_can_be_planned(family, tmp_path):
    AutoConfig.for_model(family, **(SMALL | FAMILIES[family])).save_pretrained(tmp_path)
    recipe = Recipe(model=str(tmp_path), quant="none", r=4, max_length=32, per_device_train_batch_size=1)
    assert "at the peak" in plan(recipe, "T4").verdict
