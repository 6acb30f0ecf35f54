"""What the stages share: the device, models with random weights in real shapes, and memory that is counted, limited and given back.

Without a GPU the shapes are tiny and everything that only a card can tell is None: the code runs, and no figure comes of it.
"""
import contextlib, copy, gc, json, pathlib
from importlib.metadata import PackageNotFoundError, version

import torch

from loranb.models import petit
from loranb.models.hub import quiet_libraries
from loranb.memory.rehearsal import find_layers
from loranb.core.recipe import Recipe
from loranb.models.shapes import find_config

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SHAPES = {"1B": "meta-llama/Llama-3.2-1B", "3B": "meta-llama/Llama-3.2-3B", "7B": "meta-llama/Llama-2-7b-hf",
    "8B": "meta-llama/Llama-3.1-8B", "32B": "Qwen/Qwen3-32B", "65B": "huggyllama/llama-65b"}
TINY = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
    head_dim=32, vocab_size=512, pad_token_id=0, bos_token_id=1, eos_token_id=2)
BASE = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8)
TINY_BASE = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2)


def versions():
    "Of the libraries whose figures these are"
    found = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl"):
        with contextlib.suppress(PackageNotFoundError): found[name] = version(name)
    return found


def base_folder(root):
    "A Llama of the shape of a 1B model on disk, with random weights and petit's tokenizer, made once"
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    folder = root/"base"
    if (folder/"tokenizer.json").is_file(): return folder
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32000, tie_word_embeddings=True, **(BASE if CUDA else TINY_BASE))
    with torch.device(DEVICE): model = LlamaForCausalLM(config).to(torch.bfloat16 if CUDA else torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(petit.path()).save_pretrained(folder)  # last: its file says that all is there
    return folder


def config_of(shape):
    "The configuration of a real model; without a GPU the same kind of model, tiny"
    config = find_config(Recipe(model=SHAPES[shape]))
    for name, value in {} if CUDA else TINY.items(): setattr(config, name, value)
    return config


def quantized(linear, quant, dtype):
    "A linear layer as bitsandbytes keeps it"
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
    m, n, bias, w = linear.out_features, linear.in_features, linear.bias is not None, linear.weight.data
    if quant == "int8":
        with torch.device("meta"): new = Linear8bitLt(n, m, bias, has_fp16_weights=False, threshold=6.)
        weight = Int8Params(w.to(torch.float16).cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        with torch.device("meta"): new = Linear4bit(n, m, bias, dtype, True, quant)
        weight = Params4bit(w, requires_grad=False, quant_type=quant, compress_statistics=True, module=new)
    new.weight, new.bias, new.source_cls = weight.to(DEVICE), linear.bias, torch.nn.Linear
    return new


def ready(layer, quant, dtype):
    "A layer of a model in its type, frozen and quantized"
    layer = layer.to(dtype).requires_grad_(False)
    for name, m in list(layer.named_modules()):
        if isinstance(m, torch.nn.Linear) and quant != "none": layer.set_submodule(name, quantized(m, quant, dtype))
    return layer


def make(config, quant, dtype):
    "A model with random weights on the device, made and quantized one layer after the other: no file, no host memory, no whole model in 16 bits"
    from transformers import AutoModelForCausalLM
    small, depth = copy.deepcopy(config), config.num_hidden_layers
    small.num_hidden_layers = 1
    torch.manual_seed(0)
    with torch.device(DEVICE), quiet_libraries(): model = AutoModelForCausalLM.from_config(small, dtype=dtype)
    layers, _ = find_layers(model)
    kind = type(layers[0])
    model.requires_grad_(False)
    for k in ("num_hidden_layers", "layer_types"):
        if hasattr(config, k): setattr(model.config, k, getattr(config, k))
    layers[0] = ready(layers[0], quant, dtype)
    for i in range(1, depth):
        with torch.device(DEVICE): layer = kind(model.config, i)
        layers.append(ready(layer, quant, dtype))
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quant in ("fp4", "nf4"), quant == "int8"
    model.loranb_dtype = dtype
    return model.eval()


def free():
    "Give back what can go"
    gc.collect()
    if not CUDA: return
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.cuda.synchronize()


def used():
    "Bytes that tensors hold on the card when what can go has gone"
    free()
    return torch.cuda.memory_allocated() if CUDA else None


def most():
    "The most bytes that tensors held since `fresh`"
    return torch.cuda.max_memory_allocated() if CUDA else None


def taken():
    "Bytes that the allocator has taken from the card at most, and what the context has; None without a card"
    if not CUDA: return dict(reserved=None, context=None)
    left, total = torch.cuda.mem_get_info()
    return dict(reserved=torch.cuda.max_memory_reserved(), context=total - left - torch.cuda.memory_reserved())


def fresh():
    "Count the most from here on"
    free()
    if CUDA: torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def held_to(size):
    "The allocator held to so many bytes"
    if CUDA: torch.cuda.set_per_process_memory_fraction(min(1., size/torch.cuda.get_device_properties(0).total_memory))
    try: yield
    finally:
        if CUDA: torch.cuda.set_per_process_memory_fraction(1.)


def gb(size): return None if size is None else round(size/1e9, 3)


def pace(events, skip=2):
    "Tokens a second of the steps of a run, without the first ones"
    events = events[skip:] or events
    return round(sum(e["tokens"] for e in events)/sum(e["seconds"] for e in events))


def rows(n, words, answer):
    "Prompts and completions of about so many words"
    return [{"prompt": "The cat sleeps. "*(words + i % max(1, words//4)),
        "completion": " Le chat dort."*(answer + i % 4)} for i in range(n)]


def jsonable(o):
    "Figures as JSON takes them"
    return o.item() if hasattr(o, "item") else str(o)


def line(row): return json.dumps(row, default=jsonable)


def here(name): return pathlib.Path(__file__).parent/name
