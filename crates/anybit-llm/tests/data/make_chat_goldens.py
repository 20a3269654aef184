"""Makes the expected prompts of the tests of chat templates.

    pip install jinja2
    python make_chat_goldens.py

renders the templates of the folder `chat` beside this file with Python's Jinja, set up as Hugging Face's
`apply_chat_template` does, and writes `chat/goldens.json`: template by template, the prompt of each conversation, null
where the template refuses it. `llama-3`, `chatml` (Qwen2), `gemma` and `zephyr` (TinyLlama) are the published templates
of these models; `features` is made up, of what others use.
"""

import json
import os

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat")

SYSTEM = ("system", "Answer briefly.\nBe kind.")
HELLO = ("user", "  Hello <there> & \"you\"!\n")
ANSWER = ("assistant", "<think>\nhm\n</think>\n\nHi! \u00e9\u4f60\U0001F600")
NEXT = ("user", "What is {{ 1 + 1 }}?\n\nAnd {% raw %}?")
CONVERSATIONS = [
    [HELLO],
    [SYSTEM, HELLO],
    [HELLO, ANSWER, NEXT],
    [SYSTEM, HELLO, ANSWER, NEXT, ("assistant", "2, skip"), ("user", "skip it")],
    [HELLO, NEXT],
    [("user", "")],
]


def refuse(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    goldens = []
    for name in sorted(name for name in os.listdir(FOLDER) if name.endswith(".jinja")):
        with open(os.path.join(FOLDER, name)) as file:
            template = environment.from_string(file.read())
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in [False, True]:
                variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
                try:
                    text = template.render(messages=messages, add_generation_prompt=prompt, **variables)
                except TemplateError:
                    text = None
                goldens.append({"template": name, "messages": messages, "add_generation_prompt": prompt, "text": text})
    with open(os.path.join(FOLDER, "goldens.json"), "w") as file:
        json.dump(goldens, file, indent=1)
        file.write("\n")


main()
