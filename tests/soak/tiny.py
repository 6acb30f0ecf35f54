"A base small enough to be loaded a thousand times: two layers of random weights with petit's tokenizer"
from pathlib import Path


def tiny_base(folder):
    "Make it, and return its folder"
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from loranb.models.hub import find_model, load_tokenizer
    from loranb.core.recipe import Recipe
    tok = load_tokenizer(find_model(Recipe()))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id))
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(Path(folder))
