"""Tiny random models of the families that transformers ships, with petit's tokenizer: two layers, hidden size 64.

`FAMILIES` names each with the arguments of its configuration; `build(name, folder)` saves one as `save_pretrained` does.
"""
import torch

from loranb import petit
from loranb.base import load_tokenizer, quiet

LLAMA = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, head_dim=16, tie_word_embeddings=False)
GPT = dict(n_embd=64, n_layer=2, n_head=4, n_positions=256, n_inner=96)
MOE = dict(LLAMA, num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, shared_expert_intermediate_size=48)
SLIDE = dict(LLAMA, sliding_window=16)
MLA = dict(LLAMA, num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, head_dim=16, n_routed_experts=4, num_experts_per_tok=2,
    n_shared_experts=1, moe_intermediate_size=48, first_k_dense_replace=1, n_group=1, topk_group=1)
SSM = dict(hidden_size=64, num_hidden_layers=2, state_size=8, intermediate_size=128, time_step_rank=4, expand=2)
FAMILIES = dict(
    llama=LLAMA, qwen2=LLAMA, qwen3=dict(LLAMA, tie_word_embeddings=True), qwen2_moe=MOE, qwen3_moe=MOE, gemma=dict(LLAMA, tie_word_embeddings=True), gemma2=dict(SLIDE, tie_word_embeddings=True),
    gemma3_text=dict(SLIDE, tie_word_embeddings=True), mistral=SLIDE, ministral=SLIDE, mixtral=MOE, phi=LLAMA, phi3=dict(SLIDE, pad_token_id=2), phimoe=dict(MOE, hidden_size=64), gpt2=GPT, gpt_neox=dict(LLAMA),
    gpt_neo=dict(hidden_size=64, num_layers=2, num_heads=4, max_position_embeddings=256, attention_types=[[["global", "local"], 1]], window_size=16), gptj=dict(GPT, rotary_dim=8),
    codegen=dict(GPT, rotary_dim=8), gpt_bigcode=dict(GPT, multi_query=True), opt=dict(LLAMA, ffn_dim=96, word_embed_proj_dim=64, tie_word_embeddings=True), bloom=dict(hidden_size=64, n_layer=2, n_head=4),
    mpt=dict(d_model=64, n_heads=4, n_layers=2, max_seq_len=256, expansion_ratio=2), falcon=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, multi_query=True, alibi=False),
    stablelm=LLAMA, starcoder2=SLIDE, olmo=LLAMA, olmo2=LLAMA, olmo3=SLIDE, olmoe=MOE, granite=LLAMA, granitemoe=MOE, cohere=dict(LLAMA, tie_word_embeddings=True), cohere2=dict(SLIDE, tie_word_embeddings=True),
    smollm3=LLAMA, glm=dict(LLAMA, pad_token_id=2), glm4=dict(LLAMA, pad_token_id=2), nemotron=LLAMA, gpt_oss=dict(MOE, sliding_window=16), exaone4=SLIDE, ernie4_5=LLAMA, hunyuan_v1_dense=LLAMA, persimmon=LLAMA,
    xglm=dict(d_model=64, num_layers=2, attention_heads=4, ffn_dim=96, max_position_embeddings=256), biogpt=dict(LLAMA), lfm2=dict(LLAMA, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    jamba=dict(MOE, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False), seed_oss=LLAMA, arcee=LLAMA, apertus=LLAMA,
    helium=LLAMA, diffllama=LLAMA, ernie4_5_moe=dict(MOE, moe_num_experts=4, moe_k=2), deepseek_v2=MLA, deepseek_v3=MLA,
    llama4_text=dict(MOE, intermediate_size_mlp=96, interleave_moe_layer_step=1), qwen3_5_text=dict(LLAMA, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2,
    linear_key_head_dim=16, linear_value_head_dim=16), rwkv=dict(hidden_size=64, num_hidden_layers=2, attention_hidden_size=64, intermediate_size=96, context_length=256), mamba=SSM,
    mamba2=dict(SSM, head_dim=16, num_heads=8, n_groups=1, chunk_size=16), falcon_mamba=SSM, minicpm3=dict(MLA), )


def build(name, folder, task="CAUSAL_LM", **changes):
    "Save a random model of a family into a folder, with petit's tokenizer"
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
    tok = load_tokenizer(petit.path())
    with quiet():
        base = dict(pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, vocab_size=len(tok))
        config = AutoConfig.for_model(name, **{**base, **FAMILIES[name], **changes})
        torch.manual_seed(0)
        model = (AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification).from_config(config)
        model.save_pretrained(folder); tok.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


ROWS = [{"prompt": f"{a} {b} =", "completion": f" {b} {a}"} for a in ("the cat", "the dog", "a bird", "the man") for b in ("sleeps", "sings", "eats")]
SHORT = dict(r=4, max_steps=3, max_length=16, per_device_train_batch_size=2, gradient_accumulation_steps=1, gradient_checkpointing=False, test_size=2, eval_steps=0, save_steps=0, spectra_steps=0)


def walk(base, out, quant, **changes):
    "Each stage of the loop on the model in the folder `base`, by loranb's own functions: what it showed, or why it was refused"
    from loranb.evaluate import logits
    from loranb.recipe import Recipe, RecipeError
    from loranb.spectra import Spectra
    from loranb.train import Run
    from loranb.base import quantized_layers
    stages = {}
    try:
        run = Run(Recipe(**{**dict(model=str(base), data=ROWS, quant=quant, **SHORT), **changes}), out).train()
        model, row = run.model, run._data.train[0]
        stages["load"] = len(quantized_layers(model))
        stages["adapt"] = len(run.of_type("start")[-1:]) and run.of_type("start")[-1]["modules"]
        stages["train"] = [round(e["loss"], 3) for e in run.of_type("step")]
        stages["proof"] = all(ok for ok, _ in run.checks) or [words for ok, words in run.checks if not ok]
        live, saved = Spectra.of(model), Spectra.of(run.adapter.path)
        stages["spectra"] = len(live) if live.names == saved.names else f"{len(live)} live, {len(saved)} saved"
        here = logits(model, row)
        again = Run.open(out)
        stages["reload"] = float((logits(again.model, row) - here).abs().max())
        stages["generate"] = len(again.generate("the cat sleeps =", 4)) >= 0
        merged = again.model.merge_and_unload()
        stages["merge"] = float((logits(merged, row) - here).abs().max())
    except RecipeError as e: stages["refused"] = str(e)
    return stages
