"""Makes the vocabularies and the expected ids of the tokeniser's tests.

    pip install gguf sentencepiece regex numpy cyllama
    python make_tokenizer_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf

writes into the folder `tokenizer` beside this file:

* `byte-level.gguf`: a small vocabulary of byte-level pieces whose merges cross every boundary (spaces, digits, line
  breaks), so that each rule of a pre-tokeniser shows in the ids. The file has metadata alone.
* `spm-prefix.gguf`, `spm-plain.gguf`: small SentencePiece models with byte fallback, trained here; the first puts a
  space in front of a text (as Llama 2 does), the second does not and has pieces defined by the user (as Gemma does).
* `goldens.json`: texts, and the ids of each under each vocabulary.

The ids are llama.cpp's. Before they are written they are compared with those of an independent tokeniser: for
byte-level vocabularies with a plain one below, on the regular expressions that the models' own files publish (where
llama.cpp only approximates the expression, the plain one's ids are kept); for SentencePiece with SentencePiece.
"""

import json
import os
import sys
import tempfile

import gguf
import numpy
import regex
import sentencepiece
from cyllama.llama import llama_cpp

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")

PARAGRAPH = (
    "The quick brown fox jumps over the lazy dog. In 1969, two people walked on the Moon; it's been 50 years since "
    "then, and they haven't been back. We'll see what the next 10 years bring, won't we? "
)

TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    " Hello, world! ",
    "  leading and trailing spaces   ",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say it's ours; we've won, you'd lose, he's left, don't.",
    "I'M SURE THEY'LL SAY IT'S OURS; WE'VE WON.",
    "Rock'n'roll 'tis the season 'twas",
    "1234567890",
    "3.14159, 2,718,281 and 42 or 7th; 100% of $5.00",
    "abc123def4567 v2.0.1-rc3",
    "Year 2024: 1 22 333 4444 55555",
    "one\ntwo\n\nthree\n\n\nfour\n\n\n\n",
    "windows\r\nlines\r\n\r\nend\r",
    "tabs\tand\t\tmore\t\t\ttabs",
    "spaces  two   three    four     five",
    "mixed \t \n  \n\t white   \n",
    " \n \n  x\n   y",
    "x = [i**2 for i in range(10) if i % 2 == 0]\nprint(x)\n",
    "fn main() {\n    let v: Vec<u32> = (0..10).map(|i| i * 2).collect();\n\tprintln!(\"{v:?}\");\n}\n",
    "if (a && b || !c) { return a->b[0] != NULL; } // done\n/* --- */",
    "CamelCaseWords and snake_case_words, SCREAMING_CASE",
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9 co\u00f6perate \u00c5ngstr\u00f6m \u0141\u00f3d\u017a Stra\u00dfe",
    "cafe\u0301 nai\u0308ve a\u0300\u0301\u0302 q\u0307\u0323",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u4eec\u572823\u53f7\u89c1\u9762\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430?",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0967\u0968\u0969",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001F600 \U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 \U0001F44D\U0001F3FD \U0001F1E9\U0001F1EA \u2764\ufe0f",
    "Hello \u4e16\u754c \u043c\u0438\u0440 \u05e9\u05dc\u05d5\u05dd 123 \U0001F30D!",
    "\u00bd \u00b2 \u2167 \u2460 \u00b5 \u2211\u221e \u2260 \u2264 \u2200x\u2208\u211d",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2026 dots \u00ab guillemets \u00bb",
    "non\u00a0breaking\u2003em\u3000ideographic\u200bzero\u2028line",
    "control \u0000\u0001\u0007\u001b[0m\u007f\u0085 end",
    "unencodable \u0004 perhaps",
    "private \ue000 \U000F0000 and last \U0010FFFF, tags \U000E0067",
    "\ufeffwith a byte order mark",
    "a literal \u2581 low bar\u2581\u2581",
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>more <s> </s><s>",
    "</s> after the end</s>",
    "<start_of_turn>user\nHi<end_of_turn>\n<table>  <td></table>",
    "<|im_start <|im_end|> |im_end|> <|im_start|><|im_start|>",
    "<0x0A> <0x41> <unk>",
    "https://example.com/path?query=1&other=two#fragment me@example.org",
    "!!!??? ... --- === ### ``` ~~~ @@@ ^^^",
    "A" * 40 + "ab" * 30 + " " * 40 + "\n" * 9,
    PARAGRAPH * 3,
]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (
    CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Expressions that split a text one after another, whether whole words of the vocabulary skip the merges, and whether
# llama.cpp has the same expressions.
PRE_TOKENIZERS = {
    "smollm": ([r"\p{N}", GPT2], False, True),
    "gpt-2": ([GPT2], False, True),
    "llama-bpe": ([LLAMA3], True, True),
    "dbrx": ([LLAMA3], False, True),
    "qwen2": ([LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")], False, True),
    "qwen35": (
        [
            CONTRACTION
            + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ],
        False,
        True,
    ),
    "default": ([r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"], False, True),
    "falcon": ([r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"], False, True),
    "deepseek-coder": ([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"], False, True),
    "deepseek-v3": (
        [
            r"\p{N}{1,3}",
            "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
        ],
        False,
        True,
    ),
    "tekken": ([TEKKEN], True, False),
    "gpt-4o": ([GPT4O], False, False),
}


def byte_characters():
    """GPT-2's characters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters.update({byte: chr(256 + place) for place, byte in enumerate(others)})
    return [characters[byte] for byte in range(256)]


BYTES = byte_characters()


def spell(text):
    return "".join(BYTES[byte] for byte in text.encode())


def train_merges(texts, count):
    """Byte pair encoding of whole texts: no boundary stops a merge."""
    words = [list(spell(text)) for text in texts]
    merges = []
    while len(merges) < count:
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair] * (len(pair[0] + pair[1]) < 12), pair))
        merges.append(best)
        words = [merge(word, best) for word in words]
    return merges


def merge(word, pair):
    merged, place = [], 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            merged.append(word[place] + word[place + 1])
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return merged


class Plain:
    """Byte-level byte pair encoding, step by step."""

    def __init__(self, tokens, merges, expressions, whole_words):
        self.ids = {token: place for place, token in enumerate(tokens)}
        self.ranks = {}
        for rank, pair in enumerate(merges):
            self.ranks.setdefault(pair, rank)
        self.expressions = [regex.compile(expression) for expression in expressions]
        self.whole_words = whole_words

    def split(self, text):
        parts = [text]
        for expression in self.expressions:
            parts = [part for whole in parts for part in isolate(expression, whole)]
        return parts

    def encode(self, text):
        """The ids, or None if a byte has no piece."""
        ids = []
        for part in self.split(text):
            word = spell(part)
            if self.whole_words and word in self.ids:
                ids.append(self.ids[word])
                continue
            word = list(word)
            while len(word) > 1:
                ranked = [self.ranks.get(pair, len(self.ranks)) for pair in zip(word, word[1:])]
                rank = min(ranked)
                if rank == len(self.ranks):
                    break
                place = ranked.index(rank)
                word[place : place + 2] = [word[place] + word[place + 1]]
            ids += [self.ids.get(piece) for piece in word]
        return None if None in ids else ids


def isolate(expression, text):
    parts, end = [], 0
    for match in expression.finditer(text):
        parts += [text[end : match.start()], match.group()]
        end = match.end()
    return [part for part in [*parts, text[end:]] if part]


class LlamaCpp:
    def __init__(self, path):
        self.model = llama_cpp.LlamaModel(path_model=path, params=llama_cpp.LlamaModelParams(), verbose=False)
        self.vocabulary = self.model.get_vocab()

    def encode(self, text, ends, parse):
        return [int(token) for token in self.vocabulary.tokenize(text, ends, parse)]


def write_gguf(path, fields, tensors):
    """A file of metadata; llama.cpp also wants the `tensors` of a model."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in fields.items():
        key = f"tokenizer.ggml.{key}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    if tensors:
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(32)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        square, row = numpy.zeros((32, 32), numpy.float32), numpy.zeros(32, numpy.float32)
        writer.add_tensor("token_embd.weight", numpy.zeros((len(fields["tokens"]), 32), numpy.float32))
        writer.add_tensor("output_norm.weight", row)
        for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
            writer.add_tensor(f"blk.0.{name}.weight", square)
        for name in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(f"blk.0.{name}.weight", row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp_of(fields):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        write_gguf(path, fields, tensors=True)
        return LlamaCpp(path)


def goldens_of(vocabulary, pre, llama, other):
    """The expected ids of every text, in one or three ways; None where a text cannot be encoded. `other(text)` are the
    ids of the independent tokeniser, with special pieces as text."""
    ways = {"text": (False, False)}
    if vocabulary != "byte-level" or pre == "smollm":
        ways.update({"parse": (False, True), "sequence": (True, True)})
    record = {"vocabulary": vocabulary, "pre": pre}
    for name, (ends, parse) in ways.items():
        record[name] = [llama.encode(text, ends, parse) for text in TEXTS]
    for place, text in enumerate(TEXTS):
        expected = other(text)
        if expected is None:
            for name in ways:
                record[name][place] = None
        elif expected is not NotImplemented and expected != record["text"][place]:
            raise SystemExit(f"{vocabulary}, {pre}: {text!r}\n{expected}\n{record['text'][place]}")
    return record


def byte_level():
    alphabet = [BYTES[byte] for byte in range(256)]
    # llama.cpp takes pieces such as </s> for control pieces because of their names, so no merges may lead to one.
    corpus = [text for text in TEXTS if "</s>" not in text and "<|" not in text]
    merges = train_merges([*corpus, PARAGRAPH], 330)
    tokens = alphabet + [left + right for left, right in merges]
    # Whole words that no merge makes, for vocabularies that take them all the same.
    tokens += [word for word in ["\u0120dog", "Hello", "\u0120people"] if word not in tokens]
    types = [1] * len(tokens)
    special = {"<|endoftext|>": 3, "<|im_start|>": 3, "<|im_end|>": 3, "<table>": 4, "</table>": 4}
    tokens += special
    types += special.values()
    fields = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": types,
        "merges": [f"{left} {right}" for left, right in merges],
        "bos_token_id": tokens.index("<|im_start|>"),
        "eos_token_id": tokens.index("<|im_end|>"),
        "add_bos_token": True,
    }
    write_gguf(os.path.join(FOLDER, "byte-level.gguf"), fields, tensors=False)
    records = []
    for pre, (expressions, whole_words, same) in PRE_TOKENIZERS.items():
        plain = Plain(tokens, merges, expressions, whole_words)
        defined = ["<table>", "</table>"]

        def encode(text):
            return NotImplemented if any(piece in text for piece in defined) else plain.encode(text)

        if same:
            records.append(goldens_of("byte-level", pre, llama_cpp_of({**fields, "pre": pre}), encode))
        else:
            ids = [None if encode(text) is NotImplemented else encode(text) for text in TEXTS]
            skip = [place for place, text in enumerate(TEXTS) if encode(text) is NotImplemented]
            records.append({"vocabulary": "byte-level", "pre": pre, "text": ids, "skip": skip})
    return records


def sample(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    plain = Plain(tokens, merges, PRE_TOKENIZERS["smollm"][0], False)
    return goldens_of("sample", "smollm", LlamaCpp(path), plain.encode)


def sentence_piece(name, **options):
    with tempfile.TemporaryDirectory() as folder:
        corpus = os.path.join(folder, "corpus.txt")
        with open(corpus, "w") as file:
            for text in TEXTS:
                file.write(text.replace("\0", "").replace("\u2581", "") + "\n")
            file.write((PARAGRAPH + "\n") * 5)
        sentencepiece.SentencePieceTrainer.train(
            input=corpus,
            model_prefix=os.path.join(folder, "model"),
            model_type="bpe",
            vocab_size=620,
            byte_fallback=True,
            character_coverage=0.98,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
            **options,
        )
        processor = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "model.model"))
    count = processor.get_piece_size()
    tokens, types = [], []
    defined = options.get("user_defined_symbols", [])
    for place in range(count):
        piece = processor.id_to_piece(place)
        kind = 1
        if processor.is_unknown(place):
            kind = 2
        elif processor.is_control(place):
            kind = 3
        elif processor.is_byte(place):
            kind = 6
        elif piece in defined:
            # llama.cpp's converter writes the spaces of such pieces as they are.
            kind, piece = 4, piece.replace("\u2581", " ")
        tokens.append(piece)
        types.append(kind)
    fields = {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [processor.get_score(place) for place in range(count)],
        "token_type": types,
        "bos_token_id": processor.bos_id(),
        "eos_token_id": processor.eos_id(),
        "unknown_token_id": processor.unk_id(),
    }
    if not options["add_dummy_prefix"]:
        fields["add_space_prefix"] = False
    write_gguf(os.path.join(FOLDER, f"{name}.gguf"), fields, tensors=False)

    def encode(text):
        # SentencePiece ends a text at a zero byte, and takes its substitute for spaces for one.
        if "\0" in text or "\u2581" in text:
            return NotImplemented
        return processor.encode(text)

    return goldens_of(name, "default", llama_cpp_of(fields), encode)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    records = [sample(sys.argv[1]), *byte_level()]
    records.append(sentence_piece("spm-prefix", add_dummy_prefix=True))
    records.append(
        sentence_piece(
            "spm-plain",
            add_dummy_prefix=False,
            control_symbols=["<start_of_turn>", "<end_of_turn>"],
            user_defined_symbols=["\u2581" * 2, "\u2581" * 3, "\u2581" * 4, "\n\n", "<table>", "</table>"],
        )
    )
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    texts = json.dumps(TEXTS, indent=0)
    with open(os.path.join(FOLDER, "goldens.json"), "w") as file:
        file.write(f'{{"texts": {texts},\n"goldens": [\n{lines}\n]}}\n')


main()
