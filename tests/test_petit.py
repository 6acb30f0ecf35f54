"petit: the grammar of its world, its tokenizer and template, its splits, its folder, and how it is made."
import gzip, json
import random

import pytest
from hypothesis import given, settings, strategies as st

from loranb.models import petit
from loranb.core.fields import RecipeError
from making import making

world = making("01_world")
base = making("01_world", "02_base")
A, BE, NAMES, N, PRONOUNS, VERBS = (getattr(world, n) for n in "ADJECTIVES BE NAMES NOUNS PRONOUNS VERBS".split())
Clause, Group, agree, both = (getattr(world, n) for n in "Clause Group agree both".split())
french, french_group, english_group = world.french, world.french_group, world.english_group


def name(n): return Group(NAMES[n], "")
def pro(n): return Group(PRONOUNS[n], "")
def the(n, *adj, **kw): return Group(N[n], kw.pop("det", "the"), tuple(A[a] for a in adj), **kw)
def verb(v, frame="transitive"): return VERBS[v, frame]


@pytest.mark.parametrize("words,written", [("le arbre", "l'arbre"), ("la école", "l'école"), ("le homme", "l'homme"),
    ("le *hibou", "le hibou"), ("la *hache", "la hache"), ("de le *héros", "du héros"), ("je ai", "j'ai"),
    ("je ne ai pas", "je n'ai pas"), ("elle se est levée", "elle s'est levée"), ("je me habille", "je m'habille"),
    ("parce que il", "parce qu'il"), ("parce que Émile", "parce qu'Émile"), ("près de la île", "près de l'île"),
    ("à le marché", "au marché"), ("à les amis", "aux amis"), ("à le hôpital", "à l'hôpital"),
    ("de le jardin", "du jardin"), ("de les œufs", "des œufs"), ("de le oncle", "de l'oncle"),
    ("beaucoup de oies", "beaucoup d'oies"), ("pas de eau", "pas d'eau"), ("à la plage", "à la plage"),
    ("le chat", "le chat"), ("la chatte de Anna", "la chatte d'Anna")])
def test_elision_and_contraction(words, written): assert french(words) == written


@pytest.mark.parametrize("word,forms", [("petit", "petit petite petits petites"), ("beau", "beau belle beaux belles"),
    ("vieux", "vieux vieille vieux vieilles"), ("nouveau", "nouveau nouvelle nouveaux nouvelles"),
    ("blanc", "blanc blanche blancs blanches"), ("rouge", "rouge rouge rouges rouges"),
    ("curieux", "curieux curieuse curieux curieuses"), ("actif", "actif active actifs actives"),
    ("cher", "cher chère chers chères"), ("léger", "léger légère légers légères"), ("bon", "bon bonne bons bonnes"),
    ("loyal", "loyal loyale loyaux loyales"), ("frais", "frais fraîche frais fraîches"),
    ("jaloux", "jaloux jalouse jaloux jalouses"), ("gris", "gris grise gris grises"),
    ("gros", "gros grosse gros grosses"), ("bleu", "bleu bleue bleus bleues"),
    ("gentil", "gentil gentille gentils gentilles"), ("fatigué", "fatigué fatiguée fatigués fatiguées"),
    ("parti", "parti partie partis parties"), ("ouvert", "ouvert ouverte ouverts ouvertes"),
    ("pris", "pris prise pris prises")])
def test_agreement(word, forms): assert [agree(word, g, p) for p in (False, True) for g in "mf"] == forms.split()


@pytest.mark.parametrize("noun,plural", [("chat", "chats"), ("oiseau", "oiseaux"), ("cheval", "chevaux"),
    ("souris", "souris"), ("bijou", "bijoux"), ("*hibou", "*hiboux"), ("journal", "journaux"), ("prix", "prix"),
    ("tableau", "tableaux"), ("œuf", "œufs"), ("clé", "clés"), ("portail", "portails"), ("bateau", "bateaux"),
    ("tapis", "tapis"), ("hôpital", "hôpitaux")])
def test_french_plural(noun, plural): assert world.french_plural(noun) == plural


@pytest.mark.parametrize("v,forms", [("parler", "parle parle parlons parlent parlé parlais parlera"),
    ("manger", "mange mange mangeons mangent mangé mangeais mangera"),
    ("lancer", "lance lance lançons lancent lancé lançais lancera"),
    ("acheter", "achète achète achetons achètent acheté achetais achètera"),
    ("appeler", "appelle appelle appelons appellent appelé appelais appellera"),
    ("lever", "lève lève levons lèvent levé levais lèvera"),
    ("nettoyer", "nettoie nettoie nettoyons nettoient nettoyé nettoyais nettoiera"),
    ("envoyer", "envoie envoie envoyons envoient envoyé envoyais enverra"),
    ("protéger", "protège protège protégeons protègent protégé protégeais protégera"),
    ("choisir", "choisis choisit choisissons choisissent choisi choisissais choisira"),
    ("perdre", "perds perd perdons perdent perdu perdais perdra"), ("être", "suis est sommes sont été étais sera"),
    ("aller", "vais va allons vont allé allais ira"), ("voir", "vois voit voyons voient vu voyais verra"),
    ("boire", "bois boit buvons boivent bu buvais boira"),
    ("prendre", "prends prend prenons prennent pris prenais prendra"),
    ("recevoir", "reçois reçoit recevons reçoivent reçu recevais recevra"),
    ("courir", "cours court courons courent couru courais courra"),
    ("venir", "viens vient venons viennent venu venais viendra"),
    ("écrire", "écris écrit écrivons écrivent écrit écrivais écrira"),
    ("connaître", "connais connaît connaissons connaissent connu connaissais connaîtra"),
    ("peindre", "peins peint peignons peignent peint peignais peindra"),
    ("vouloir", "veux veut voulons veulent voulu voulais voudra"),
    ("ouvrir", "ouvre ouvre ouvrons ouvrent ouvert ouvrais ouvrira"),
    ("enfuir", "enfuis enfuit enfuyons enfuient enfui enfuyais enfuira")])
def test_conjugation(v, forms):
    got = [*(world.present(v, p) for p in ("1s", "3s", "1p", "3p")), world.participle(v), world.imperfect(v, "1s"),
        world.future(v, "3s")]
    assert got == forms.split()


def test_nous_in_the_imperfect():
    assert [world.imperfect(v, "1p") for v in ("manger", "lancer", "nettoyer", "rire", "être")] == ["mangions",
        "lancions", "nettoyions", "riions", "étions"]


@pytest.mark.parametrize("v,forms", [("carry", "carries carried carrying"), ("stop", "stops stopped stopping"),
    ("go", "goes went going"), ("watch", "watches watched watching"), ("see", "sees saw seeing"),
    ("look_for", "looks for|looked for|looking for"), ("wake_up", "wakes up|woke up|waking up"),
    ("play", "plays played playing"), ("forget", "forgets forgot forgetting"), ("swim", "swims swam swimming"),
    ("travel", "travels travelled travelling"), ("visit", "visits visited visiting"), ("open", "opens opened opening"),
    ("chase", "chases chased chasing")])
def test_english_verbs(v, forms):
    assert [world.english_form(v, f) for f in ("s", "past", "ing")] == (forms.split("|") if "|" in forms
        else forms.split())


def test_english_nouns():
    assert [english_group(the(n, det="a")) for n in ("apple", "hat", "umbrella")] == ["an apple", "a hat",
        "an umbrella"]
    assert english_group(the("boy", "honest", det="a")) == "an honest boy"
    assert [english_group(the(n, plural=True)) for n in ("child", "mouse", "box", "story", "boy", "wolf",
        "tomato")] == [f"the {w}" for w in "children mice boxes stories boys wolves tomatoes".split()]


@pytest.mark.parametrize("group,en,fr", [(the("bird", "beautiful", det="a"), "a beautiful bird", "un bel oiseau"),
    (the("tree", "old", det="this"), "this old tree", "ce vieil arbre"),
    (the("bird", det="this"), "this bird", "cet oiseau"), (the("owl", det="this"), "this owl", "ce hibou"),
    (the("owl", "old", det="a"), "an old owl", "un vieux hibou"), (the("tree", "old", plural=True), "the old trees",
    "les vieux arbres"), (the("cat", "small", det="some", plural=True), "some small cats", "de petits chats"),
    (the("cat", "black", det="some", plural=True), "some black cats", "des chats noirs"),
    (the("scarf", det="my"), "my scarf", "mon écharpe"), (the("scarf", "new", det="her"), "her new scarf",
    "sa nouvelle écharpe"), (the("water", det="some"), "some water", "de l'eau"),
    (the("bread", "fresh", det="some"), "some fresh bread", "du pain frais"),
    (the("soup", "hot", det="some"), "some hot soup", "de la soupe chaude"),
    (the("dress", "beautiful", "white"), "the beautiful white dress", "la belle robe blanche"),
    (the("goose", det="many", plural=True), "many geese", "beaucoup d'oies"),
    (the("door", of=the("hotel")), "the door of the hotel", "la porte de l'hôtel"),
    (the("roof", of=the("castle")), "the roof of the castle", "le toit du château"),
    (the("flower", "red", det="their", plural=True), "their red flowers", "leurs fleurs rouges"),
    (the("hotel", "new", det="a"), "a new hotel", "un nouvel hôtel"), (the("child", "shy", det="two", plural=True),
    "two shy children", "deux enfants timides")])
def test_noun_groups(group, en, fr): assert (english_group(group), french(french_group(group))) == (en, fr)


SENTENCES = [(Clause(the("queen"), verb("go", "motion"), place=("to", the("market")), tense="past"),
    "The queen went to the market.", "La reine est allée au marché."),
    (Clause(Group(NAMES["Marie"], "", and_=name("Anna")), verb("arrive", "motion"), place=("at", the("station")),
    tense="past"), "Marie and Anna arrived at the station.", "Marie et Anna sont arrivées à la gare."),
    (Clause(Group(NAMES["Marie"], "", and_=name("Paul")), verb("leave", "motion"), place=("from", the("office")),
    tense="past"), "Marie and Paul left from the office.", "Marie et Paul sont partis du bureau."),
    (Clause(pro("she"), verb("get_up", "intransitive"), tense="past", negation="not"), "She did not get up.",
    "Elle ne s'est pas levée."), (Clause(pro("we"), verb("rest", "intransitive"), tense="future"), "We will rest.",
    "Nous nous reposerons."), (Clause(pro("I"), verb("get_dressed", "intransitive"), tense="imperfect"),
    "I was getting dressed.", "Je m'habillais."),
    (Clause(pro("I"), verb("buy"), object=the("apple", det="some", plural=True), tense="past", negation="not"),
    "I did not buy any apples.", "Je n'ai pas acheté de pommes."),
    (Clause(pro("I"), verb("love"), object=the("bear", plural=True), negation="no longer"),
    "I no longer love the bears.", "Je n'adore plus les ours."),
    (Clause(pro("he"), verb("drink"), object=the("water", det="some"), negation="never"), "He never drinks any water.",
    "Il ne boit jamais d'eau."), (Clause(pro("he"), verb("hate"), object=the("bean", plural=True), tense="past"),
    "He hated the beans.", "Il détestait les haricots."),
    (Clause(name("Paul"), verb("play"), object=the("piano"), often=("often", "souvent"), tense="past"),
    "Paul often played the piano.", "Paul a souvent joué du piano."),
    (Clause(name("Paul"), verb("play"), object=the("guitar")), "Paul plays the guitar.", "Paul joue de la guitare."),
    (Clause(the("baker"), verb("speak_to"), object=the("child", plural=True)), "The baker speaks to the children.",
    "Le boulanger parle aux enfants."), (Clause(the("flower", plural=True,
    relative=Clause(name("Alice"), verb("find"), object=the("flower"), tense="past")), BE,
    adjective=("very", A["beautiful"])), "The flowers that Alice found are very beautiful.",
    "Les fleurs qu'Alice a trouvées sont très belles."),
    (Clause(the("girl", relative=Clause(the("girl"), verb("sing", "intransitive"), tense="past")), BE,
    adjective=("", A["tired"]), tense="past"), "The girl who sang was tired.",
    "La fille qui a chanté était fatiguée."),
    (Clause(pro("she"), verb("write"), object=the("letter", det="a"), question=True, tense="past"),
    "Did she write a letter?", "Est-ce qu'elle a écrit une lettre ?"),
    (Clause(the("gate", "old"), BE, adjective=("", A["broken"]), question=True), "Is the old gate broken?",
    "Est-ce que le vieux portail est cassé ?"),
    (Clause(the("uncle", det="our"), verb("give", "giving"), object=the("ring", det="a"), to=the("princess"),
    tense="future", time=("tomorrow", "demain"), first=True), "Tomorrow, our uncle will give a ring to the princess.",
    "Demain, notre oncle donnera une bague à la princesse."),
    (Clause(pro("we"), verb("eat"), object=the("cheese", det="some"), place=("near", the("bridge"))),
    "We eat some cheese near the bridge.", "Nous mangeons du fromage près du pont."),
    (Clause(the("mouse", plural=True), verb("run_away", "intransitive"), tense="past", manner=("quickly", "vite")),
    "The mice ran away quickly.", "Les souris se sont enfuies vite."),
    (Clause(name("Lucie"), verb("sing", "intransitive"), manner=("alone", "seul")), "Lucie sings alone.",
    "Lucie chante seule."),]


@pytest.mark.parametrize("clause,en,fr", SENTENCES, ids=[s[1] for s in SENTENCES])
def test_sentences(clause, en, fr): assert both(clause) == (en, fr)


def test_several_hundred_words(): assert len(N) + len(A) + len(VERBS) + len(NAMES) > 350


# ---- splits

def test_a_story_and_its_translation_say_the_same_combinations():
    for split in ("train", "test"):
        for i in range(20):
            assert {world.split_of(k) for k in world.said(world.random_story(random.Random(i), split))} == {split}
        for i in range(100):
            assert {world.split_of(k) for k in world.random_sentence(random.Random(i), split)[2]} == {split}


def test_splits_share_nothing():
    for t in petit.TASKS:
        train, test = ({m["content"] for r in petit.task(t, s, n) for m in r["messages"] if m["role"] == "user"} for s,
            n in (("train", 1500), ("test", 200)))
        assert len(train) == 1500 and len(test) == 200 and not train & test


def test_the_training_text_has_no_sentence_of_a_test_split():
    rng = random.Random(5)
    text = "\n".join(base.document(rng) for _ in range(4000))
    sentences = set(s.strip() for line in text.replace("! ", ".\n").replace(". ", ".\n").split("\n")
        for s in line.split(" = ") + line.split(" | ") + line.split(" : ") + line.split(" -> "))
    for row in petit.task("translate", "test"):
        q, a = (m["content"] for m in row["messages"])
        assert q.removeprefix("Translate to French: ") not in sentences and a not in sentences
    for row in petit.task("summarize", "test", 100):
        assert not {s.strip() + "." for s in row["messages"][0]["content"].split(": ", 1)[1].split(".")
            if s.strip()} & sentences
    assert not any(t in text for t in base.SPECIAL) and "Translate" not in text


def test_tasks_are_deterministic():
    for t in petit.TASKS:
        assert petit.task(t, "test", 5) == petit.task(t, "test", 5) == petit.task(t, "test", 9)[:5]
        assert len(petit.task(t)) == 4000 and len(petit.task(t, "test")) == 400


def test_the_rows_are_those_that_the_grammar_makes(tmp_path):
    "What is shipped is what the notebook writes, byte for byte"
    rows = making("01_world", "03_rows")
    rows.write_rows(tmp_path/"rows.jsonl.gz")
    unpacked = [gzip.decompress(p.read_bytes()) for p in (tmp_path/"rows.jsonl.gz", petit.path()/"rows.jsonl.gz")]
    assert unpacked[0] == unpacked[1]
    assert [m["content"] for r in petit.task("chat", "test", 9) for m in r["messages"]] == [
        o for row in rows.draw("chat", "test", 9) for o in row]


def test_neutral_lines_are_in_no_task():
    text = "\n".join(m["content"] for t in petit.TASKS for s in ("train", "test") for r in petit.task(t, s)
        for m in r["messages"])
    for language in ("en", "fr"):
        lines = petit.neutral(language)
        assert len(set(lines)) == 200 and not any(line in text for line in lines)
    assert petit.neutral("en")[0] != petit.neutral("fr")[0]


def test_no_word_of_a_story_names_its_mood():
    for r in petit.task("classify", "train", 500):
        story = r["messages"][0]["content"].split("? ", 1)[1].lower()
        assert not any(w in story.split() for w in ("happy", "sad", "angry",
            "calm")) and r["messages"][1]["content"] in ("Happy", "Sad", "Angry", "Calm")


def test_mistakes_are_told():
    with pytest.raises(RecipeError, match="translate"): petit.task("translat")
    with pytest.raises(RecipeError, match="valid"): petit.task("translate", "valid")
    with pytest.raises(RecipeError): petit.metric("x")


# ---- tokenizer and template

@pytest.fixture(scope="module")
def tok():
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(petit.path())


def test_any_text_comes_back(tok):
    @settings(max_examples=200, deadline=None)
    @given(st.text().filter(lambda s: not any(t in s for t in base.SPECIAL)))
    def check(s): assert tok.decode(tok(s, add_special_tokens=False).input_ids) == s
    check()


def test_french_comes_back(tok):
    for s in ("Est-ce qu'Émile a déjà goûté l'œuf ? Ça va, Noël !", "  deux  espaces\n\n", "日本語 🙂"):
        assert tok.decode(tok(s).input_ids) == s
    assert len(tok("La vieille infirmière n'a pas mangé l'œuf.").input_ids) <= 12


def test_special_tokens(tok):
    assert (tok.bos_token, tok.eos_token, tok.pad_token) == ("<s>", "</s>", "<pad>")
    assert tok.convert_tokens_to_ids(base.SPECIAL) == [0, 1, 2, 3, 4]


def test_template_prefixes(tok):
    msgs = [{"role": "system", "content": "Be brief."}] + [{"role": r, "content": f"{r} {i}: l'été\n"}
        for i in range(3) for r in ("user", "assistant")]
    for chat in (msgs, msgs[1:]):
        whole, ids = tok.apply_chat_template(chat, tokenize=False), tok.apply_chat_template(chat, return_dict=False)
        for i in range(1, len(chat) + 1):
            gen = i < len(chat) and chat[i]["role"] == "assistant"
            part, pids = tok.apply_chat_template(chat[:i], tokenize=False,
                add_generation_prompt=gen), tok.apply_chat_template(chat[:i], add_generation_prompt=gen,
                return_dict=False)
            assert whole.startswith(part) and ids[:len(pids)] == pids
            assert part.endswith("<assistant>") if gen else part.endswith("</s>") == (chat[i - 1]["role"]
                == "assistant")
    d = tok.apply_chat_template(msgs, return_dict=True, return_assistant_tokens_mask=True)
    text = tok.decode([t for t, m in zip(d["input_ids"], d["assistant_masks"]) if m])
    assert text == "".join(f"{m['content']}</s>" for m in msgs if m["role"] == "assistant")


# ---- the folder

def test_folder_is_small_and_float32():
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    p = petit.path()
    assert sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) <= 10e6
    model, stored = AutoModelForCausalLM.from_pretrained(p), load_file(p / "model.safetensors")
    assert model.dtype == torch.float32 and type(model).__name__ == "LlamaForCausalLM" and 2e6 < model.num_parameters() < 4e6
    assert all(torch.equal(stored[n].float(), w) for n, w in model.named_parameters())
    assert json.loads((p / "config.json").read_text())["dtype"] == "float32"


def test_the_base_knows_no_instruction(tok):
    import torch
    from transformers import AutoModelForCausalLM
    model, right = AutoModelForCausalLM.from_pretrained(petit.path()).eval(), petit.metric("translate")
    rows = petit.task("translate", "test", 24)
    batch = tok.apply_chat_template([r["messages"][:1] for r in rows], add_generation_prompt=True, padding=True,
        return_dict=True, return_tensors="pt", tokenizer_kwargs={"padding_side": "left"})
    with torch.no_grad():
        out = model.generate(**batch, max_new_tokens=32, do_sample=False)[:, batch["input_ids"].shape[1]:]
    assert sum(right(tok.decode(o, skip_special_tokens=True), r) for o, r in zip(out, rows)) <= 1


def test_few_shot_and_metric():
    row = petit.task("chat", "test", 1)[0]
    msgs = petit.few_shot("chat", row, k=3)
    assert [m["role"] for m in msgs] == ["user", "assistant"] * 3 + ["user"] and msgs[-1] == row["messages"][0]
    assert petit.metric("chat")(f" {row['messages'][1]['content']}\n", row) and not petit.metric("chat")("", row)


def test_make_small(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    losses = []
    base.make(tmp_path / "a", steps=3, batch=2, length=32, width=64, layers=1, vocab=400, log=lambda i,
        l: losses.append(l))
    base.make(tmp_path / "b", steps=3, batch=2, length=32, width=64, layers=1, vocab=400)
    assert len(losses) == 3
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    model, tok = AutoModelForCausalLM.from_pretrained(tmp_path / "a"), AutoTokenizer.from_pretrained(tmp_path / "a")
    assert model.config.vocab_size >= len(tok) and model.generation_config.eos_token_id == tok.eos_token_id
