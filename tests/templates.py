"""Chat templates by shape, written out from what popular families use, and by hand what they make of four chats: «» encloses what is learned

Each is: the template, its special tokens, the start and the end token, and the text of ONE, MANY, SYSTEM and EMPTY; a string without « is the refusal that is expected.
`more` holds chats that only some templates know: tools, thoughts.
"""
from dataclasses import dataclass, field


def chat(*turns): return [dict(role=r, content=c) for r, c in zip(turns[::2], turns[1::2])]


def ends_learned(tok, row):
    "Is the last learned token of an `Encoded` row one that ends a turn?"
    last = next((l for l in reversed(row.labels) if l != -100), None)
    return last in tok.all_special_ids or last in tok.added_tokens_decoder and tok.added_tokens_decoder[last].special


ONE = chat("user", "Hi", "assistant", "Yo")
MANY = chat("user", "Hi", "assistant", "Yo", "user", "And?", "assistant", "So.")
SYSTEM = chat("system", "Be kind", "user", "Hi", "assistant", "Yo")
EMPTY = chat("system", "", "user", "Hi", "assistant", "Yo")
CHATS = dict(one=ONE, many=MANY, system=SYSTEM, empty=EMPTY)
TOOL = dict(type="function", function=dict(name="add", description="Adds",
    parameters=dict(type="object", properties={})))
CALL = [dict(role="user", content="Hi"), dict(role="assistant", content="",
    tool_calls=[dict(type="function", id="call_0001", function=dict(name="add", arguments=dict(a=1)))]),
    dict(role="tool", name="add", content="3", tool_call_id="call_0001"), dict(role="assistant", content="Three")]
THINK = chat("user", "Hi", "assistant", "<think>\nhm\n</think>\n\nYo", "user", "And?", "assistant",
    "<think>\nwell\n</think>\n\nSo.")


@dataclass
class Case:
    template: str
    specials: list
    bos: str
    eos: str
    one: str
    many: str
    system: str
    empty: str
    more: list = field(default_factory=list)  # (messages, tools, text)


ALL = {}

IM = ["<|im_start|>", "<|im_end|>"]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% "
    "endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
CHATML_TEXTS = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«So.<|im_end|>»\n",
    "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n",
    "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n")
ALL["chatml (Yi)"] = Case(CHATML, IM, "<s>", "<|im_end|>", *CHATML_TEXTS)

ALL["chatml, pad token ends (eos is not the end of turn)"] = Case(CHATML, IM, "<s>", "</s>", *CHATML_TEXTS)

ALL["chatml, the marks leave the end token out"] = Case("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if "
    "m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif "
    "%}<|im_end|>{{ '\\n' }}{% endfor %}" "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    IM, "<s>", "<|im_end|>", *CHATML_TEXTS)

ALL["chatml, the marks take the line break in"] = Case("{% for m in messages %}{% if m.role == 'assistant' %}{{ "
    "'<|im_start|>assistant\\n' }}{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}{% else %}{{ "
    "'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}", IM, "<s>", "<|im_end|>", *CHATML_TEXTS)

ALL["chatml, the marks cover the last turn only"] = Case("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' "
    "}}{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration "
    "%}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}", IM, "<s>", "<|im_end|>", *CHATML_TEXTS)

ALL["chatml on a tokenizer that does not know it"] = Case(CHATML, [], "<s>", "</s>",
    *(t.rstrip("\n").removesuffix("»") + "</s>»" for t in CHATML_TEXTS))

ALL["Llama 2"] = Case("{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = "
    "messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation "
    "roles must alternate user/assistant') }}{% endif %}"
    "{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + "
    "m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + "
    "content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}", [], "<s>", "</s>", "<s>[INST] Hi [/INST]« Yo </s>»",
    "<s>[INST] Hi [/INST]« Yo </s>»<s>[INST] And? [/INST]« So. </s>»",
    "<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi [/INST]« Yo </s>»",
    "<s>[INST] <<SYS>>\n\n<</SYS>>\n\nHi [/INST]« Yo </s>»")

L3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
    "<|python_tag|>"]
ALL["Llama 3"] = Case(
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}", L3, "<|begin_of_text|>", "<|eot_id|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«So.<|eot_id|>»",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»")

H31 = ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday "
    "Date: 26 Jul 2024\n\n")
ALL["Llama 3.1, tools in the first question"] = Case(
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{% if tools %}{{ 'Environment: ipython\\n' }}{% endif %}{{ 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}"
    "{% if tools %}{% set first = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{{ '<|start_header_id|>user<|end_header_id|>\\n\\nFunctions:\\n' }}{% for t in tools %}{{ t.function.name + '\\n' }}{% endfor %}{{ first + '<|eot_id|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}{% set f = m.tool_calls[0].function %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n{\"name\": \"' + f.name + '\", \"parameters\": ' + f.arguments | tojson + '}<|eot_id|>' }}"
    "{% else %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}", L3, "<|begin_of_text|>", "<|eot_id|>",
    H31 + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»",
    H31 + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«So.<|eot_id|>»",
    H31 + "Be kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»",
    H31 + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Yo<|eot_id|>»",
    [(CALL, [TOOL], H31.replace("Cutting", "Environment: ipython\nCutting") + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nFunctions:\nadd\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
      "«{\"name\": \"add\", \"parameters\": {\"a\": 1}}<|eot_id|>»<|start_header_id|>ipython<|end_header_id|>\n\n\"3\"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«Three<|eot_id|>»")])

ALL["Mistral v1, roles alternate"] = Case("{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ "
    "m['content'] + eos_token + ' ' }}{% endif %}{% endfor %}", [], "<s>", "</s>", "<s>[INST] Hi [/INST]«Yo</s>» ",
    "<s>[INST] Hi [/INST]«Yo</s>» [INST] And? [/INST]«So.</s>» ", "roles must alternate", "roles must alternate")

V3 = ("{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] "
    "%}{% else %}{% set rest = messages %}{% endif %}{% set users = rest | selectattr('role', 'equalto', 'user') | "
    "list %}" "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}{% if tools and m == users[-1] %}{{ "
    "'[AVAILABLE_TOOLS]SP' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% if loop.last or (m == users[-1] and system is defined) %}{{ '[INST]SP' + (system + '\\n\\n' if system is "
    "defined else '') + m.content + '[/INST]' }}{% else %}{{ '[INST]SP' + m.content + '[/INST]' }}{% endif %}"
    "{% elif m.tool_calls is defined and m.tool_calls is not none %}{{ '[TOOL_CALLS]SP[' }}{% for c in m.tool_calls "
    "%}{{ '{\"name\": \"' + c.function.name + '\", \"arguments\": ' + c.function.arguments | tojson + '}' }}{% "
    "endfor %}{{ ']' + eos_token }}" "{% elif m.role == 'assistant' %}{{ 'SP' + m.content + eos_token }}{% elif "
    "m.role == 'tool' %}{{ '[TOOL_RESULTS]SP{\"content\": ' + m.content + '}[/TOOL_RESULTS]' }}{% else %}{{ "
    "raise_exception('Only user, system, assistant and tool roles are supported') }}{% endif %}{% endfor %}")
MI = ["[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]"]
SCHEMA = ('[{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object", '
    '"properties": {}}}}]')
CALLS = [*CALL, dict(role="user", content="And?"), dict(role="assistant", content="So.")]
ALL["Mistral v3, system and tools in the last question"] = Case(V3.replace("SP", " "), MI, "<s>", "</s>",
    "<s>[INST] Hi[/INST]« Yo</s>»", "<s>[INST] Hi[/INST]« Yo</s>»[INST] And?[/INST]« So.</s>»", "<s>[INST] Be kind\n\nHi[/INST]« Yo</s>»", "<s>[INST] \n\nHi[/INST]« Yo</s>»",
    [(SYSTEM + MANY[2:], None, "<s>[INST] Hi[/INST]« Yo</s>»[INST] Be kind\n\nAnd?[/INST]« So.</s>»"),
     (MANY, [TOOL], f"<s>[INST] Hi[/INST]« Yo</s>»[AVAILABLE_TOOLS] {SCHEMA}[/AVAILABLE_TOOLS][INST] And?[/INST]« So.</s>»"),
     (CALL, [TOOL], f"<s>[AVAILABLE_TOOLS] {SCHEMA}[/AVAILABLE_TOOLS][INST] Hi[/INST]«[TOOL_CALLS] [{{\"name\": \"add\", \"arguments\": {{\"a\": 1}}}}]</s>»[TOOL_RESULTS] {{\"content\": 3}}[/TOOL_RESULTS]« Three</s>»"),
     (CALLS, [TOOL], "<s>[INST] Hi[/INST]«[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": 1}}]</s>»[TOOL_RESULTS] {\"content\": 3}[/TOOL_RESULTS]« Three</s>»"
      f"[AVAILABLE_TOOLS] {SCHEMA}[/AVAILABLE_TOOLS][INST] And?[/INST]« So.</s>»")])
ALL["Mistral Nemo, no spaces"] = Case(V3.replace("SP", ""), MI, "<s>", "</s>", "<s>[INST]Hi[/INST]«Yo</s>»",
    "<s>[INST]Hi[/INST]«Yo</s>»[INST]And?[/INST]«So.</s>»", "<s>[INST]Be kind\n\nHi[/INST]«Yo</s>»",
    "<s>[INST]\n\nHi[/INST]«Yo</s>»", [(SYSTEM + MANY[2:], None,
    "<s>[INST]Hi[/INST]«Yo</s>»[INST]Be kind\n\nAnd?[/INST]«So.</s>»")])

GM = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
ALL["Gemma 2, no system"] = Case(
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    GM, "<bos>", "<eos>",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n«So.<end_of_turn>»\n",
    "System role not supported", "System role not supported")
ALL["Gemma 3, system in the first question"] = Case(
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\\n\\n' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}{{ m['content'] | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    GM, "<bos>", "<eos>",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n«So.<end_of_turn>»\n",
    "<bos><start_of_turn>user\nBe kind\n\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n",
    "<bos><start_of_turn>user\n\n\nHi<end_of_turn>\n<start_of_turn>model\n«Yo<end_of_turn>»\n")

PH = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
ALL["Phi 3, another end for the whole chat"] = Case(
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}", PH, "<s>", "<|endoftext|>",
    "<|user|>\nHi<|end|>\n<|assistant|>\n«Yo<|end|>»\n<|endoftext|>",
    "<|user|>\nHi<|end|>\n<|assistant|>\n«Yo<|end|>»\n<|user|>\nAnd?<|end|>\n<|assistant|>\n«So.<|end|>»\n<|endoftext|>",
    "<|system|>\nBe kind<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n«Yo<|end|>»\n<|endoftext|>",
    "<|system|>\n<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n«Yo<|end|>»\n<|endoftext|>")
ALL["Phi 4"] = Case(
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|im_start|>system<|im_sep|>' + m['content'] + '<|im_end|>' }}{% elif m['role'] == 'user' %}{{ '<|im_start|>user<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|im_start|>assistant<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    [*IM, "<|im_sep|>", "<|endoftext|>"], "<|endoftext|>", "<|im_end|>",
    "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>«Yo<|im_end|>»",
    "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>«Yo<|im_end|>»<|im_start|>user<|im_sep|>And?<|im_end|><|im_start|>assistant<|im_sep|>«So.<|im_end|>»",
    "<|im_start|>system<|im_sep|>Be kind<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>«Yo<|im_end|>»",
    "<|im_start|>system<|im_sep|><|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>«Yo<|im_end|>»")

QCALL = ("{{ '\\n<tool_call>\\n{\"name\": \"' + c.function.name + '\", \"arguments\": ' + c.function.arguments | "
    "tojson + '}\\n</tool_call>' }}")
QTOOL = ("{% elif m.role == 'tool' %}{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ "
    "'<|im_start|>user' }}{% endif %}{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}{% endif %}{% "
    "endfor %}")
QTOOLS = ("\n# Tools\n{\"type\": \"function\", \"function\": {\"name\": \"add\", \"description\": \"Adds\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {}}}}")
Q25 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
ALL["Qwen 2.5, a system prompt of its own"] = Case(
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}{{ 'Q25' }}{% endif %}{{ '\\n# Tools' }}{% for t in tools %}{{ '\\n' + t | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% else %}{{ '<|im_start|>system\\nQ25<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == 'assistant' and not m.tool_calls) %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>' + m.role }}{% if m.content %}{{ '\\n' + m.content }}{% endif %}{% for c in m.tool_calls %}".replace("Q25", Q25) + QCALL + "{% endfor %}{{ '<|im_end|>\\n' }}" + QTOOL +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}", IM, None, "<|im_end|>",
    f"<|im_start|>system\n{Q25}<|im_end|>\n" + CHATML_TEXTS[0], f"<|im_start|>system\n{Q25}<|im_end|>\n" + CHATML_TEXTS[1], CHATML_TEXTS[2], CHATML_TEXTS[3],
    [(CALL, [TOOL], f"<|im_start|>system\n{Q25}{QTOOLS}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<tool_call>\n{{\"name\": \"add\", \"arguments\": {{\"a\": 1}}}}\n</tool_call><|im_end|>»\n"
      "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n«Three<|im_end|>»\n")])

ALL["Qwen 3, thoughts of the past are gone"] = Case(
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}{{ '# Tools' }}{% for t in tools %}{{ '\\n' + t | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}"
    "{% set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}"
    "{% if ns.multi_step_tool and m.role == 'user' and not(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}{% set ns.multi_step_tool = false %}{% set ns.last_query_index = index %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% elif m.role == 'assistant' %}{% set content = m.content %}{% set thought = '' %}{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}"
    "{% elif '</think>' in content %}{% set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{% if loop.index0 > ns.last_query_index and (loop.last or thought) %}{{ '<|im_start|>' + m.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}{% else %}{{ '<|im_start|>' + m.role + '\\n' + content }}{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}" + QCALL.replace("'\\n<tool", "('\\n' if content else '') + '<tool") + "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}" + QTOOL +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}", IM, None, "<|im_end|>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nYo<|im_end|>»\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nSo.<|im_end|>»\n",
    "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nYo<|im_end|>»\n",
    "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nYo<|im_end|>»\n",
    [(THINK, None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«<think>\nwell\n</think>\n\nSo.<|im_end|>»\n"),
     ([ONE[0], dict(ONE[1], reasoning_content="hm")], None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<think>\nhm\n</think>\n\nYo<|im_end|>»\n"),
     (CALL, [TOOL], f"<|im_start|>system\n{QTOOLS[1:]}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<tool_call>\n{{\"name\": \"add\", \"arguments\": {{\"a\": 1}}}}\n</tool_call><|im_end|>»\n"
      "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nThree<|im_end|>»\n"),
     ([CALL[0], dict(CALL[1], reasoning_content="hm"), *CALLS[2:]], [TOOL], f"<|im_start|>system\n{QTOOLS[1:]}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<tool_call>\n{{\"name\": \"add\", \"arguments\": {{\"a\": 1}}}}\n</tool_call><|im_end|>»\n"
      "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n«Three<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nSo.<|im_end|>»\n")])

ALL["Qwen 3 Thinking, the thought begins in the prompt"] = Case(
    "{% for m in messages %}{% if m.role == 'assistant' and loop.last and '</think>' in m.content %}{{ '<|im_start|>assistant\\n<think>\\n' + m.content.split('<think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' + m.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}", IM, None, "<|im_end|>", *CHATML_TEXTS,
    [(THINK, None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n<think>\n«well\n</think>\n\nSo.<|im_end|>»\n")])

DS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
ALL["DeepSeek R1, thoughts are never kept"] = Case(
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% set ns.system = m['content'] %}{% endif %}{% endfor %}{{ bos_token + ns.system }}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% elif m['role'] == 'assistant' %}{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}", DS, DS[0], DS[1],
    "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>«Yo<｜end▁of▁sentence｜>»",
    "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>«Yo<｜end▁of▁sentence｜>»<｜User｜>And?<｜Assistant｜>«So.<｜end▁of▁sentence｜>»",
    "<｜begin▁of▁sentence｜>Be kind<｜User｜>Hi<｜Assistant｜>«Yo<｜end▁of▁sentence｜>»",
    "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>«Yo<｜end▁of▁sentence｜>»",
    [(THINK, None, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>«\n\nYo<｜end▁of▁sentence｜>»<｜User｜>And?<｜Assistant｜>«\n\nSo.<｜end▁of▁sentence｜>»")])

CR = ["<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>"]
U, A = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
ALL["Command R"] = Case(
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% if system != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for m in rest %}{% set content = m['content'] %}"
    "{% if m['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif m['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}", CR, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>",
    f"<BOS_TOKEN>{U}Hi<|END_OF_TURN_TOKEN|>{A}«Yo<|END_OF_TURN_TOKEN|>»",
    f"<BOS_TOKEN>{U}Hi<|END_OF_TURN_TOKEN|>{A}«Yo<|END_OF_TURN_TOKEN|>»{U}And?<|END_OF_TURN_TOKEN|>{A}«So.<|END_OF_TURN_TOKEN|>»",
    f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be kind<|END_OF_TURN_TOKEN|>{U}Hi<|END_OF_TURN_TOKEN|>{A}«Yo<|END_OF_TURN_TOKEN|>»",
    f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|END_OF_TURN_TOKEN|>{U}Hi<|END_OF_TURN_TOKEN|>{A}«Yo<|END_OF_TURN_TOKEN|>»")

ALL["Zephyr, headers that are plain text"] = Case("{% for m in messages %}{% if m['role'] == 'user' %}{{ "
    "'<|user|>\\n' + m['content'] + eos_token }}{% elif m['role'] == 'system' %}{{ '<|system|>\\n' + m['content'] + "
    "eos_token }}{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\\n' + m['content'] + eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}", [], "<s>", "</s>",
    "<|user|>\nHi</s>\n<|assistant|>\n«Yo</s>»\n",
    "<|user|>\nHi</s>\n<|assistant|>\n«Yo</s>»\n<|user|>\nAnd?</s>\n<|assistant|>\n«So.</s>»\n",
    "<|system|>\nBe kind</s>\n<|user|>\nHi</s>\n<|assistant|>\n«Yo</s>»\n",
    "<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\n«Yo</s>»\n")

VIC = "A chat between a curious user and an artificial intelligence assistant."
ALL["Vicuna"] = Case("{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = "
    "messages[0]['content'].strip() + ' ' %}{% else %}{% set rest = messages %}{% set system = 'VIC ' %}{% endif "
    "%}{{ bos_token + system }}".replace("VIC", VIC)
    + "{% for m in rest %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'].strip() + ' ' }}{% elif m['role'] "
    "== 'assistant' %}{{ 'ASSISTANT: ' + m['content'].strip() + eos_token }}{% endif %}{% endfor %}{% if "
    "add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}", [], "<s>", "</s>",
    f"<s>{VIC} USER: Hi ASSISTANT:« Yo</s>»", f"<s>{VIC} USER: Hi ASSISTANT:« Yo</s>»USER: And? ASSISTANT:« So.</s>»",
    "<s>Be kind USER: Hi ASSISTANT:« Yo</s>»", "<s> USER: Hi ASSISTANT:« Yo</s>»")

ALL["Alpaca style, no end token"] = Case("{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + "
    "'\\n\\n' }}{% elif m['role'] == 'user' %}{{ '### Instruction:\\n' + m['content'] + '\\n\\n' }}{% elif m['role'] "
    "== 'assistant' %}{{ '### Response:\\n' + m['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}", [], "<s>", "</s>",
    "### Instruction:\nHi\n\n### Response:\n«Yo</s>»",
    "### Instruction:\nHi\n\n### Response:\n«Yo»\n\n### Instruction:\nAnd?\n\n### Response:\n«So.</s>»",
    "Be kind\n\n### Instruction:\nHi\n\n### Response:\n«Yo</s>»", "\n\n### Instruction:\nHi\n\n### Response:\n«Yo</s>»")

SM = "<|im_start|>system\n## Metadata\n\nReasoning Mode: /think\n\n## Custom Instructions\n\n{}\n\n<|im_end|>\n"
SMD = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
ALL["SmolLM 3, marked, metadata before the system prompt"] = Case(
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}{% if system %}{% set custom = system.rstrip() %}{% else %}{% set custom = 'SMD' %}{% endif %}"
    "{{ '<|im_start|>system\\n## Metadata\\n\\nReasoning Mode: /think\\n\\n## Custom Instructions\\n\\n' + custom + '\\n\\n<|im_end|>\\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}{% elif m.role == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\\n' + m.content.lstrip('\\n') + '<|im_end|>\\n' }}{% endgeneration %}"
    "{% elif m.role == 'tool' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}".replace("SMD", SMD), IM, None, "<|im_end|>",
    SM.format(SMD) + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n",
    SM.format(SMD) + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«So.<|im_end|>»\n",
    SM.format("Be kind") + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n",
    SM.format(SMD) + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yo<|im_end|>»\n")

GR = ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]
GRS = ("<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nYou are Granite, developed by "
    "IBM.<|end_of_text|>\n")
GU, GA = "<|start_of_role|>user<|end_of_role|>", "<|start_of_role|>assistant<|end_of_role|>"
ALL["Granite"] = Case("{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest "
    "= messages[1:] %}{% else %}{% set system = 'Knowledge Cutoff Date: April 2024.\\nYou are Granite, developed by "
    "IBM.' %}{% set rest = messages %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\\n' }}{% for m in rest %}{{ "
    "'<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}", GR,
    "<|end_of_text|>", "<|end_of_text|>", f"{GRS}{GU}Hi<|end_of_text|>\n{GA}«Yo<|end_of_text|>»\n",
    f"{GRS}{GU}Hi<|end_of_text|>\n{GA}«Yo<|end_of_text|>»\n{GU}And?<|end_of_text|>\n{GA}«So.<|end_of_text|>»\n",
    f"<|start_of_role|>system<|end_of_role|>Be kind<|end_of_text|>\n{GU}Hi<|end_of_text|>\n{GA}«Yo<|end_of_text|>»\n",
    f"<|start_of_role|>system<|end_of_role|><|end_of_text|>\n{GU}Hi<|end_of_text|>\n{GA}«Yo<|end_of_text|>»\n")

ALL["OLMo 2, the start token is the end token"] = Case("{{ bos_token }}{% for m in messages %}{% if m['role'] == "
    "'system' %}{{ '<|system|>\\n' + m['content'] + '\\n' }}{% elif m['role'] == 'user' %}{{ '<|user|>\\n' + "
    "m['content'] + '\\n' }}" "{% elif m['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\\n' + "
    "m['content'] + eos_token + '\\n' }}{% else %}{{ '<|assistant|>\\n' + m['content'] + eos_token }}{% endif %}{% "
    "endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}",
    ["<|endoftext|>"], "<|endoftext|>", "<|endoftext|>", "<|endoftext|><|user|>\nHi\n<|assistant|>\n«Yo<|endoftext|>»",
    "<|endoftext|><|user|>\nHi\n<|assistant|>\n«Yo<|endoftext|>»\n<|user|>\nAnd?\n<|assistant|>\n«So.<|endoftext|>»",
    "<|endoftext|><|system|>\nBe kind\n<|user|>\nHi\n<|assistant|>\n«Yo<|endoftext|>»",
    "<|endoftext|><|system|>\n\n<|user|>\nHi\n<|assistant|>\n«Yo<|endoftext|>»")

HA = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|constrain|>"]
HS = "<|start|>system<|message|>You are ChatGPT.\n\nReasoning: medium<|end|>"
ALL["gpt-oss, channels and two ends"] = Case(
    "{{ '<|start|>system<|message|>You are ChatGPT.\\n\\nReasoning: medium<|end|>' }}{% if messages[0].role == 'system' or messages[0].role == 'developer' %}{% set developer = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set developer = '' %}{% set rest = messages %}{% endif %}"
    "{% if developer or tools %}{{ '<|start|>developer<|message|>' }}{% if developer %}{{ '# Instructions\\n\\n' + developer }}{% endif %}{% if tools %}{{ '# Tools' }}{% for t in tools %}{{ ' ' + t.function.name }}{% endfor %}{% endif %}{{ '<|end|>' }}{% endif %}"
    "{% for m in rest %}{% if m.role == 'assistant' and 'tool_calls' in m %}{% if m.thinking %}{% set ns = namespace(later=false) %}{% for o in rest[loop.index:] %}{% if o.role == 'assistant' and 'tool_calls' not in o %}{% set ns.later = true %}{% endif %}{% endfor %}"
    "{% if not ns.later %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}{% endif %}{{ '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|channel|>commentary json<|message|>' + m.tool_calls[0].function.arguments | tojson + '<|call|>' }}"
    "{% elif m.role == 'assistant' %}{% if loop.last and m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}{% if loop.last and not add_generation_prompt %}{{ '<|return|>' }}{% else %}{{ '<|end|>' }}{% endif %}"
    "{% elif m.role == 'tool' %}{{ '<|start|>functions.add to=assistant<|channel|>commentary<|message|>' + m.content | tojson + '<|end|>' }}{% else %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
    HA, None, "<|return|>",
    HS + "<|start|>user<|message|>Hi<|end|><|start|>assistant«<|channel|>final<|message|>Yo<|return|>»",
    HS + "<|start|>user<|message|>Hi<|end|><|start|>assistant«<|channel|>final<|message|>Yo<|end|>»<|start|>user<|message|>And?<|end|><|start|>assistant«<|channel|>final<|message|>So.<|return|>»",
    HS + "<|start|>developer<|message|># Instructions\n\nBe kind<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant«<|channel|>final<|message|>Yo<|return|>»",
    HS + "<|start|>user<|message|>Hi<|end|><|start|>assistant«<|channel|>final<|message|>Yo<|return|>»",
    [(CALL, [TOOL], HS + "<|start|>developer<|message|># Tools add<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant« to=functions.add<|channel|>commentary json<|message|>{\"a\": 1}<|call|>»"
      "<|start|>functions.add to=assistant<|channel|>commentary<|message|>\"3\"<|end|><|start|>assistant«<|channel|>final<|message|>Three<|return|>»"),
     ([*MANY[:3], dict(MANY[3], thinking="hm")], None, HS + "<|start|>user<|message|>Hi<|end|><|start|>assistant«<|channel|>final<|message|>Yo<|end|>»<|start|>user<|message|>And?<|end|>"
      "<|start|>assistant«<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>So.<|return|>»"),
     ([CALL[0], dict(CALL[1], thinking="hm"), *CALL[2:]], [TOOL], HS + "<|start|>developer<|message|># Tools add<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant« to=functions.add<|channel|>commentary json<|message|>{\"a\": 1}<|call|>»"
      "<|start|>functions.add to=assistant<|channel|>commentary<|message|>\"3\"<|end|><|start|>assistant«<|channel|>final<|message|>Three<|return|>»")])

ALL["Falcon, plain text that is reformatted"] = Case("{% for m in messages %}{% if not loop.first %}{{ '\\n' }}{% "
    "endif %}{% if m['role'] == 'system' %}{{ 'System: ' }}{% elif m['role'] == 'user' %}{{ 'User: ' }}{% else %}{{ "
    "'Falcon: ' }}{% endif %}{{ m['content'].strip().replace('\\r\\n', '\\n').replace('\\n\\n', '\\n') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nFalcon:' }}{% endif %}", ["<|endoftext|>"], None, "<|endoftext|>",
    "User: Hi\nFalcon:« Yo<|endoftext|>»", "User: Hi\nFalcon:« Yo»\nUser: And?\nFalcon:« So.<|endoftext|>»",
    "System: Be kind\nUser: Hi\nFalcon:« Yo<|endoftext|>»", "System: \nUser: Hi\nFalcon:« Yo<|endoftext|>»",
    [(chat("user", "Hi", "assistant", "a\n\nb", "user", "And?", "assistant", "c\n\nd"), None,
    "User: Hi\nFalcon:« a\nb»\nUser: And?\nFalcon:« c\nd<|endoftext|>»")])

ALL["InternLM 2, a start token before ChatML"] = Case("{{ bos_token }}" + CHATML, IM, "<s>", "</s>",
    *("<s>" + t for t in CHATML_TEXTS))

ALL["GLM 4, the next header ends a turn"] = Case("{{ '[gMASK]<sop>' }}{% for m in messages %}{% if m['role'] == "
    "'system' %}{{ '<|system|>\\n' + m['content'] }}{% elif m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] "
    "}}{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\\n' + m['content'] }}{% endif %}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}", ["[gMASK]", "<sop>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|endoftext|>"], None, "<|endoftext|>",
    "[gMASK]<sop><|user|>\nHi<|assistant|>\n«Yo<|endoftext|>»",
    "[gMASK]<sop><|user|>\nHi<|assistant|>\n«Yo»<|user|>\nAnd?<|assistant|>\n«So.<|endoftext|>»",
    "[gMASK]<sop><|system|>\nBe kind<|user|>\nHi<|assistant|>\n«Yo<|endoftext|>»",
    "[gMASK]<sop><|system|>\n<|user|>\nHi<|assistant|>\n«Yo<|endoftext|>»")

ALL["Danube"] = Case("{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|prompt|>' + m['content'] + eos_token "
    "}}{% elif m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% elif m['role'] == "
    "'assistant' %}{{ '<|answer|>' + m['content'] + eos_token }}{% endif %}{% if loop.last and add_generation_prompt "
    "%}{{ '<|answer|>' }}{% endif %}{% endfor %}", [], "<s>", "</s>", "<|prompt|>Hi</s><|answer|>«Yo</s>»",
    "<|prompt|>Hi</s><|answer|>«Yo</s>»<|prompt|>And?</s><|answer|>«So.</s>»", "System role not supported",
    "System role not supported")

ALL["Nemotron, a line break ends a turn"] = Case(
    "{{ '<extra_id_0>System' }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '\\n' + m['content'].strip() }}{% endif %}{% endfor %}{{ '\\n' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<extra_id_1>User\\n' + m['content'].strip() + '\\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<extra_id_1>Assistant\\n' + m['content'].strip() + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<extra_id_1>Assistant\\n' }}{% endif %}", ["<extra_id_0>", "<extra_id_1>"], "<s>", "</s>",
    "<extra_id_0>System\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n«Yo</s>»", "<extra_id_0>System\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n«Yo»\n<extra_id_1>User\nAnd?\n<extra_id_1>Assistant\n«So.</s>»",
    "<extra_id_0>System\nBe kind\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n«Yo</s>»", "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n«Yo</s>»")
