"Where the shape of a model comes from: the table, a folder, and a Hub that gives the configuration and the headers only."
import json, struct

import huggingface_hub, pytest
from huggingface_hub.utils import _http

from loranb.core.fields import RecipeError
from loranb.core.recipe import Recipe
from loranb.models.shapes import count_parameters, find_config, in_table, layer_outline, skeleton, model_table

# the Hub's own client, by either of its names
httpx = next(v for k, v in vars(_http).items() if k in ("httpx", "httpx2"))
LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=32, intermediate_size=64,
    num_hidden_layers=2, num_attention_heads=4, vocab_size=96, dtype="bfloat16")


def test_the_table_counts_as_published():
    "Each shape has the parameters that its page on the Hub states: within half a percent is asked, and all are equal"
    shapes = {row["names"][0]: row for row in model_table().values()}
    assert len(shapes) >= 40 and len(model_table()) >= 100
    kinds = {row["config"]["model_type"] for row in shapes.values()}
    assert {"llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "gemma2", "phi3", "gpt_oss", "olmo2", "granite"} <= kinds
    for name, row in shapes.items():
        assert count_parameters(skeleton(find_config(Recipe(model=name)))) == row["params"], name
    for row in shapes.values(): assert row["config"]["dtype"] in ("bfloat16", "float16", "float32")


def test_the_table_asks_nobody(hub):
    for name in ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"): assert layer_outline(Recipe(model=name))["targets"]
    assert not hub.asked
    assert not in_table(Recipe(model="meta-llama/Llama-3.1-8B", revision="main")) and not in_table(Recipe())


class Hub:
    "A Hub of a few models that fails on any request but one for a configuration or a header"
    def __init__(self): self.asked, self.models = [], {}

    def __call__(self, request):
        path = request.url.path
        self.asked.append((request.method, path))
        name = next((n for n in self.models if f"/{n}/" in path + "/"), None)
        if name is None:
            return httpx.Response(404, headers={"X-Error-Code": "RepoNotFound"},
                json=dict(error="Repository not found"))
        files, gated = self.models[name]
        head = {"X-Repo-Commit": "0"*40, "ETag": '"abc"'}
        if path.startswith("/api/models/"):
            if "/tree/" in path:
                return httpx.Response(200, json=[dict(type="file", path=f, size=len(v), oid="1") for f,
                    v in files.items()])
            return httpx.Response(200, json=dict(_id="1", id=name, sha="0"*40,
                siblings=[dict(rfilename=f, size=len(v)) for f, v in files.items()]))
        file = path.rpartition("/")[2]
        if gated: return httpx.Response(403, headers={"X-Error-Code": "GatedRepo"}, json=dict(error="gated"))
        if file not in files: return httpx.Response(404, headers={"X-Error-Code": "EntryNotFound", **head})
        if file != "config.json" and not (file.endswith(".safetensors")
                and (request.method == "HEAD" or "range" in request.headers)):
            raise AssertionError(f"{request.method} {path}: more than a configuration or a header was asked for")
        return httpx.Response(200, headers={**head, "Content-Length": str(len(files[file]))},
            content=b"" if request.method == "HEAD" else files[file])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    huggingface_hub.set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(hub), follow_redirects=True))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path/"cache"))
    yield hub
    _http.set_client_factory(_http.default_client_factory)


def header(**shapes):
    "The first bytes of a safetensors file; what they speak of is not there"
    at, text = 0, {}
    for name, shape in shapes.items():
        n = 2*shape[0]*shape[1]
        text[name], at = dict(dtype="BF16", shape=shape, data_offsets=[at, at + n]), at + n
    raw = json.dumps(text).encode()
    return struct.pack("<Q", len(raw)) + raw


def test_from_the_hub_the_configuration_only(hub):
    hub.models["some/llama"] = {"config.json": json.dumps(LLAMA).encode(), "tokenizer.json": b"{}",
        "model.safetensors": header(a=[96, 32], b=[32, 32]), "pytorch_model.bin": b"x"}, False
    recipe = Recipe(model="some/llama")
    shape = layer_outline(recipe)
    assert shape["params"] == count_parameters(skeleton(find_config(recipe))) and [t["name"]
        for t in shape["targets"]][:2] == ["q_proj", "k_proj"]
    assert {p.rpartition("/")[2] for m, p in hub.asked if "/resolve/" in p} == {"config.json"}


CASES = [(dict(), True, "'some/model' is gated. Accept its licence"), (b"{not json", False, "not readable as JSON"),
    (dict(hidden_size=3), False, "names no model_type"), (None, False, "has no config.json"),
    (dict(model_type="lama"), False, "Did you mean 'llama'"), (dict(LLAMA, num_attention_heads="four"), False,
    "cannot be used|no model can be built"),
    (dict(LLAMA, vocab_size=-1), False, "cannot be used|no model can be built"),
    (dict(model_type="own", auto_map=dict(AutoConfig="configuration_own.Own")), False,
    "trust_remote_code=True runs them"), (dict(model_type="t5"), False, "no causal language model")]


@pytest.mark.parametrize("config,gated,words", CASES)
def test_one_message_for_what_cannot_be_planned(hub, config, gated, words):
    hub.models["some/model"] = {"README.md": b""} if config is None else {"config.json": config if isinstance(config,
        bytes) else json.dumps(config).encode()}, gated
    with pytest.raises(RecipeError, match=words) as e: layer_outline(Recipe(model="some/model"))
    assert "\n" not in str(e.value) or "cannot be used" in str(e.value) or "no model can" in str(e.value)


def test_missing_on_the_hub(hub):
    with pytest.raises(RecipeError, match="the Hub has no model 'nobody/nothing'"):
        find_config(Recipe(model="nobody/nothing"))


def test_from_a_folder(tmp_path):
    with pytest.raises(RecipeError, match="has no config.json"): find_config(Recipe(model=str(tmp_path)))
    (tmp_path/"config.json").write_text(json.dumps(LLAMA))
    model = skeleton(find_config(Recipe(model=str(tmp_path))))
    assert {p.device.type for p in model.parameters()} == {"meta"} and layer_outline(Recipe(model=str(tmp_path)))["params"] == count_parameters(model)


@pytest.mark.parametrize("name", ["meta-llama/llama-3.1-8b", "Llama-3.1-8B"])
def test_a_name_that_is_nearly_in_the_table(name, monkeypatch):
    from loranb import plan
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RecipeError, match="The table has 'meta-llama/Llama-3.1-8B'"): plan(Recipe(model=name), "T4")
