"""Tiny random models of the families that transformers ships, with petit's tokenizer: two layers, hidden size 64.

`FAMILIES` names each with the arguments of its configuration; `build(name, folder)` saves one as `save_pretrained` does.
"""
import json, subprocess, sys

import torch

from loranb.models import petit
from loranb.models.hub import load_tokenizer, quiet_libraries

LLAMA = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, head_dim=16, tie_word_embeddings=False)
GPT = dict(n_embd=64, n_layer=2, n_head=4, n_positions=256, n_inner=96)
MOE = dict(LLAMA, num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
    shared_expert_intermediate_size=48)
SLIDE = dict(LLAMA, sliding_window=16)
MLA = dict(LLAMA, num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16,
    v_head_dim=16, head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1,
    moe_intermediate_size=48, first_k_dense_replace=1, n_group=1, topk_group=1)
SSM = dict(hidden_size=64, num_hidden_layers=2, state_size=8, intermediate_size=128, time_step_rank=4, expand=2)
FAMILIES = dict(llama=LLAMA, qwen2=LLAMA, qwen3=dict(LLAMA, tie_word_embeddings=True), qwen2_moe=MOE, qwen3_moe=MOE,
    gemma=dict(LLAMA, tie_word_embeddings=True), gemma2=dict(SLIDE, tie_word_embeddings=True),
    gemma3_text=dict(SLIDE, tie_word_embeddings=True), mistral=SLIDE, ministral=SLIDE, mixtral=MOE, phi=LLAMA,
    phi3=dict(SLIDE, pad_token_id=2), phimoe=dict(MOE, hidden_size=64), gpt2=GPT, gpt_neox=dict(LLAMA),
    gpt_neo=dict(hidden_size=64, num_layers=2, num_heads=4, max_position_embeddings=256,
    attention_types=[[["global", "local"], 1]], window_size=16), gptj=dict(GPT, rotary_dim=8),
    codegen=dict(GPT, rotary_dim=8), gpt_bigcode=dict(GPT, multi_query=True),
    opt=dict(LLAMA, ffn_dim=96, word_embed_proj_dim=64, tie_word_embeddings=True),
    bloom=dict(hidden_size=64, n_layer=2, n_head=4), mpt=dict(d_model=64, n_heads=4, n_layers=2, max_seq_len=256,
    expansion_ratio=2), falcon=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, multi_query=True,
    alibi=False), stablelm=LLAMA, starcoder2=SLIDE, olmo=LLAMA, olmo2=LLAMA, olmo3=SLIDE, olmoe=MOE, granite=LLAMA,
    granitemoe=MOE, cohere=dict(LLAMA, tie_word_embeddings=True), cohere2=dict(SLIDE, tie_word_embeddings=True),
    smollm3=LLAMA, glm=dict(LLAMA, pad_token_id=2), glm4=dict(LLAMA, pad_token_id=2), nemotron=LLAMA,
    gpt_oss=dict(MOE, sliding_window=16), exaone4=SLIDE, ernie4_5=LLAMA, hunyuan_v1_dense=LLAMA, persimmon=LLAMA,
    xglm=dict(d_model=64, num_layers=2, attention_heads=4, ffn_dim=96, max_position_embeddings=256),
    biogpt=dict(LLAMA), lfm2=dict(LLAMA, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    jamba=dict(MOE, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
    mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False), seed_oss=LLAMA, arcee=LLAMA, apertus=LLAMA,
    helium=LLAMA, diffllama=LLAMA, ernie4_5_moe=dict(MOE, moe_num_experts=4, moe_k=2), deepseek_v2=MLA,
    deepseek_v3=MLA, llama4_text=dict(MOE, intermediate_size_mlp=96, interleave_moe_layer_step=1),
    qwen3_5_text=dict(LLAMA, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
    linear_num_value_heads=2, linear_key_head_dim=16, linear_value_head_dim=16),
    rwkv=dict(hidden_size=64, num_hidden_layers=2, attention_hidden_size=64, intermediate_size=96, context_length=256),
    mamba=SSM, mamba2=dict(SSM, head_dim=16, num_heads=8, n_groups=1, chunk_size=16), falcon_mamba=SSM,
    minicpm3=dict(MLA), )


def build(name, folder, task="CAUSAL_LM", **changes):
    "Save a random model of a family into a folder, with petit's tokenizer; what will classify lacks its head"
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
    tok = load_tokenizer(petit.path())
    with quiet_libraries():
        base = dict(pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id,
            vocab_size=len(tok))
        config = AutoConfig.for_model(name, **{**base, **{**FAMILIES, **CLASSIFIERS}[name], **changes})
        torch.manual_seed(0)
        fills_gaps = task != "CAUSAL_LM" and type(config) in AutoModelForMaskedLM._model_mapping
        model = (AutoModelForMaskedLM if fills_gaps else AutoModelForCausalLM).from_config(config)
        model.save_pretrained(folder); tok.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


ENCODER = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=256)
CLASSIFIERS = dict({k: FAMILIES[k] for k in ("llama", "qwen2", "mistral", "gemma2", "gpt2", "gpt_neox", "phi3", "opt",
    "mixtral")}, bert=ENCODER, roberta=ENCODER, electra=dict(ENCODER, embedding_size=32),
    distilbert=dict(dim=64, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=256),
    modernbert=dict(ENCODER, local_attention=16, cls_token_id=0, sep_token_id=1, reference_compile=False))
ROWS = [{"prompt": f"{a} {b} =", "completion": f" {b} {a}"} for a in ("the cat", "the dog", "a bird", "the man")
    for b in ("sleeps", "sings", "eats")]
TEXTS = [{"text": f"{a} {b} today", "label": b} for a in ("the cat", "the dog", "a bird", "the man")
    for b in ("sleeps", "sings", "eats")]
SHORT = dict(r=4, max_steps=3, max_length=16, per_device_train_batch_size=2, gradient_accumulation_steps=1,
    gradient_checkpointing=False, test_size=2, eval_steps=0, save_steps=0, spectra_steps=0)


def recipe(base, quant, task="CAUSAL_LM", **changes):
    "A run of three steps on the model in a folder"
    from loranb.core.recipe import Recipe
    return Recipe(**{**dict(model=str(base), data=ROWS if task == "CAUSAL_LM" else TEXTS, task_type=task, quant=quant,
        **SHORT), **changes})


def walk(recipe, out):
    "Each stage of the loop by loranb's own functions: what it showed, or why it was refused"
    from loranb.models.quantization import quantized_layers
    from loranb.evaluate.scores import row_logits
    from loranb.core.fields import RecipeError
    from loranb.spectra.spectra import Spectra
    from loranb.train.run import Run
    stages = {}
    try:
        run = Run(recipe, out).train()
        model, row = run.model, run._data.train[0]
        stages["quantized"] = len(quantized_layers(model))
        stages["adapted"] = run.of_type("start")[-1]["modules"]
        stages["loss"] = "tiled" if getattr(model.get_base_model(), "loranb_tiles", False) else "logits"
        stages["trained"] = run.state == "done" and len(run.of_type("step")) == 3 and all(abs(e["loss"]) < 1e3
            for e in run.of_type("step"))
        stages["proof"] = all(ok for ok, _ in run.checks) or "; ".join(words for ok, words in run.checks if not ok)
        live, saved = Spectra.of(model), Spectra.of(run.adapter.path)
        stages["spectra"] = len(live) if all(abs(live[n] - saved[n]).max() <= 1e-6*live[n].max()
            for n in live.names) and len(saved) == len(live) else "differ"
        here = row_logits(model, row)
        stages["saved"] = dict(folder=str(run.adapter.path), ids=list(row.input_ids), logits=here.float().tolist())
        again = Run.open(out)
        stages["reloaded"] = float((row_logits(again.model, row) - here).abs().max())
        stages["answers"] = isinstance(again.generate("the cat sleeps =", 4), str)
        stages["merged"] = float((row_logits(again.model.merge_and_unload(), row) - here).abs().max())
    except RecipeError as e: stages["refused"] = str(e).replace(str(recipe.model), "MODEL")
    return stages


def passed(stages):
    "Did every stage hold?"
    return (stages.get("trained") is True and stages["proof"] is True and stages["reloaded"] == 0
        and stages["answers"] is True and isinstance(stages["spectra"], int))


STRANGER = """
import json, re, sys
cases, found = json.load(open(sys.argv[1])), []
for case in cases:
    loads = re.search(r"```python\\n(.*?)```", open(case["folder"] + "/README.md", encoding="utf-8").read(), re.S)[1]
    names = {}
    try:
        exec(loads.replace('"PATH-OF-THIS-FOLDER"', repr(case["folder"])), names)
        torch, model = names["torch"], names["model"]
        with torch.no_grad(): logits = model(input_ids=torch.tensor([case["ids"]])).logits[0].float()
        wanted = torch.tensor(case["logits"])
        off = float((logits.squeeze() - wanted.squeeze()).abs().max()/wanted.abs().max())
    except Exception as e: off = f"{type(e).__name__}: {e}"[:300]
    found.append(off)
assert "loranb" not in sys.modules
json.dump(found, open(sys.argv[1], "w"))
"""


def load_by_cards(cases, file):
    "How far logits are off, by the largest, where adapters are loaded by their cards' lines; or what failed"
    file.write_text(json.dumps(cases), encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-c", STRANGER, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(file.read_text(encoding="utf-8"))
