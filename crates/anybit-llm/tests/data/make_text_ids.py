"""Writes text.ids.json, the tokens of text.txt, from the vocabulary of SmolLM2-135M-Instruct.

    pip install gguf==0.19.0 tokenizers==0.23.3
    python make_text_ids.py SmolLM2-135M-Instruct.Q4_1.gguf

The vocabulary and the merges are those of the model file. The text is cut by SmolLM's rule (`tokenizer.ggml.pre` is
"smollm"): each digit alone, then GPT-2's pattern. Nothing is put before or after it.
"""

import json
import pathlib
import sys

from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers

FOLDER = pathlib.Path(__file__).parent


def tokenizer(path):
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    vocabulary = {token: index for index, token in enumerate(tokens)}
    result = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    return result


def main():
    text = (FOLDER / "text.txt").read_bytes().decode()
    ids = tokenizer(sys.argv[1]).encode(text).ids
    rows = [", ".join(map(str, ids[start:start + 16])) for start in range(0, len(ids), 16)]
    (FOLDER / "text.ids.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
    assert json.loads((FOLDER / "text.ids.json").read_text()) == ids
    print(len(ids), "tokens")


main()
