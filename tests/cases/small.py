"What the cases are made of: small tokenizers, bases and adapters, and what came of a row or a call"
import contextlib, json, signal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from loranb import data
from loranb.core.fields import RecipeError
from loranb.models.hub import quiet_libraries

CHATML = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
CONTENT = "{{ m['content'] }}"
SPECIALS = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
WORDS = "say one two four blue sky red call tool user Paris get_weather what is it"
# A run of one step that leaves the model as it is
STILL = dict(quant="none", r=4, max_steps=1, learning_rate=1e-9, per_device_train_batch_size=4,
    gradient_accumulation_steps=1, gradient_checkpointing=False, eval_steps=0, spectra_steps=0)


def tokenizer(folder, template=CHATML, specials=SPECIALS, eos="<|im_end|>", pad="<|pad|>", **more):
    "Bytes, a few words and some marks"
    from transformers import PreTrainedTokenizerFast
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator([WORDS]*50, trainers.BpeTrainer(vocab_size=500, special_tokens=list(specials),
        show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos, pad_token=pad, **more)
    if template: tok.chat_template = template
    tok.save_pretrained(folder)
    return tok


def shape(**changes):
    return dict(vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=None, eos_token_id=2) | changes


def save(model, folder):
    with quiet_libraries(): model.save_pretrained(folder)
    return model


def llama(folder, dtype=torch.float32, seed=0, **changes):
    "A Llama of random numbers"
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(seed)
    return save(LlamaForCausalLM(LlamaConfig(**shape(**changes))).to(dtype), folder)


def speaker(folder, tok, said, **changes):
    "A Llama that looks at the last token only: behind a line's end it says `said`, and over again without an end"
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape(tie_word_embeddings=False, **changes)))
    ids = tok("\n" + said, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for layer in model.model.layers: layer.self_attn.o_proj.weight.zero_(); layer.mlp.down_proj.weight.zero_()
        seen = torch.nn.functional.normalize(torch.randn(500, 64), dim=1)
        model.model.embed_tokens.weight.copy_(seen)
        model.lm_head.weight.zero_()
        for now, then in zip(ids, [*ids[1:], ids[1]]): model.lm_head.weight[then] += 20*seen[now]
    return save(model, folder)


def chat(question, answer): return {"messages": [dict(role="user", content=question),
    dict(role="assistant", content=answer)]}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(o) + "\n" for o in rows))
    return str(path)


def written(tok, recipe):
    "The first row as the model reads it, and what of it is learned"
    row = data.tokens(recipe)[0]
    return tok.decode(row["input_ids"]), tok.decode([o for o in row["labels"] if o != -100])


def refusal(do):
    "What `do` is refused with, in one sentence; empty where it is done"
    try: do()
    except RecipeError as e:
        assert "\n" not in str(e) and len(str(e)) < 600, e
        return str(e)
    return ""


@contextlib.contextmanager
def within(seconds):
    "Break off what takes longer"
    def late(*_): raise TimeoutError(f"not done within {seconds} s")
    kept = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


@contextlib.contextmanager
def prompts_of():
    "The tokens of every prompt that a model is given meanwhile, without padding"
    from transformers import GenerationMixin
    asked, whole = [], GenerationMixin.generate
    def spy(self, *args, **kw):
        asked.extend(ids[mask.bool()].tolist() for ids, mask in zip(kw["input_ids"], kw["attention_mask"]))
        return whole(self, *args, **kw)
    GenerationMixin.generate = spy
    try: yield asked
    finally: GenerationMixin.generate = whole


def adapter(model, folder, noise=0., **config):
    "A LoRA adapter of PEFT's, with B = 0 unless there is noise"
    from peft import LoraConfig, get_peft_model
    with quiet_libraries():
        lora = get_peft_model(model, LoraConfig(**dict(r=4, lora_alpha=8, target_modules=["q_proj"],
            task_type="CAUSAL_LM") | config))
        draw = torch.Generator().manual_seed(1)
        for name, p in lora.named_parameters():
            if "lora_" in name and noise: p.data.add_(torch.randn(p.shape, generator=draw)*noise)
        lora.save_pretrained(folder)
    return lora


def change_config(folder, **changes):
    "Write fields into an adapter's configuration"
    path = folder/"adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
