"""Writes miniatures.json: models of a few weights, and their logits, by plain Python and its complex numbers.

    python make_miniatures.py > miniatures.json

It shares no code with the reference of the tests. Weights are multiples of 1/8, so they are exact in F32. What a model
computes is spelt out for one token at a time: see `Model.step`.
"""

import cmath
import json
import math


class Numbers:
    """Small multiples of 1/8, from a linear congruential generator."""

    def __init__(self, seed):
        self.state = seed

    def take(self, count, low=-8, high=8):
        result = []
        for _ in range(count):
            self.state = (self.state * 1103515245 + 12345) % 2**31
            result.append((low + (self.state >> 16) % (high - low + 1)) / 8)
        return result


class Model:
    def __init__(self, seed, architecture, blocks, hidden, heads, kv_heads, dim, ffn, vocabulary, output=False,
                 factors=None, base=10000.0, linear=1.0, window=None, attention_cap=None, logit_cap=None):
        self.__dict__.update({key: value for key, value in locals().items() if key != "self"})
        numbers = Numbers(seed)
        self.t = {}

        def matrix(name, rows, columns):
            self.t[name] = ([columns, rows], numbers.take(rows * columns))

        def vector(name, length, low=-8, high=8):
            self.t[name] = ([length], numbers.take(length, low, high))

        matrix("token_embd.weight", vocabulary, hidden)
        if factors:
            self.t["rope_freqs.weight"] = ([len(factors)], factors)
        for n in range(blocks):
            b = f"blk.{n}."
            vector(b + "attn_norm.weight", hidden, 4, 12)
            for part, rows, columns in (("attn_q", heads * dim, hidden), ("attn_k", kv_heads * dim, hidden),
                                        ("attn_v", kv_heads * dim, hidden), ("attn_output", hidden, heads * dim),
                                        ("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden), ("ffn_down", hidden, ffn)):
                matrix(b + part + ".weight", rows, columns)
            vector(b + "ffn_norm.weight", hidden, 4, 12)
            if architecture == "qwen2":
                vector(b + "attn_q.bias", heads * dim)
                vector(b + "attn_k.bias", kv_heads * dim)
                vector(b + "attn_v.bias", kv_heads * dim)
            if architecture in ("qwen3", "gemma3"):
                vector(b + "attn_q_norm.weight", dim, 4, 12)
                vector(b + "attn_k_norm.weight", dim, 4, 12)
            if architecture == "gemma3":
                vector(b + "post_attention_norm.weight", hidden, 4, 12)
                vector(b + "post_ffw_norm.weight", hidden, 4, 12)
        vector("output_norm.weight", hidden, 4, 12)
        if output:
            matrix("output.weight", vocabulary, hidden)
        self.past = [[] for _ in range(blocks)]

    def metadata(self):
        entries = {
            "block_count": self.blocks, "embedding_length": self.hidden, "feed_forward_length": self.ffn,
            "context_length": 64, "attention.head_count": self.heads, "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.dim, "attention.value_length": self.dim,
            "attention.layer_norm_rms_epsilon": 0.125, "rope.freq_base": self.base,
        }
        if self.linear != 1:
            entries |= {"rope.scaling.type": "linear", "rope.scaling.factor": self.linear}
        for key, value in (("attention.sliding_window", self.window), ("attn_logit_softcapping", self.attention_cap),
                           ("final_logit_softcapping", self.logit_cap)):
            if value is not None:
                entries[key] = value
        return {"general.architecture": self.architecture} | {
            f"{self.architecture}.{key}": value for key, value in entries.items()}

    # One token at a time.

    def rows(self, name):
        (columns, *_), values = self.t[name]
        return [values[i:i + columns] for i in range(0, len(values), columns)]

    def times(self, name, x):
        return [math.fsum(w * v for w, v in zip(row, x)) for row in self.rows(name)]

    def norm(self, name, x):
        size = math.sqrt(math.fsum(v * v for v in x) / len(x) + 0.125)
        return [v / size * w for v, w in zip(x, self.t[name][1])]

    def turned(self, n, position, head):
        """The head as complex numbers, each turned by its angle."""
        half = self.dim // 2
        if self.architecture == "llama":
            pairs = [complex(head[2 * i], head[2 * i + 1]) for i in range(half)]
        else:
            pairs = [complex(head[i], head[i + half]) for i in range(half)]
        base, linear = self.base, self.linear
        if self.architecture == "gemma3" and n % 6 != 5:
            base, linear = 10000.0, 1.0
        result = []
        for i, pair in enumerate(pairs):
            angle = position / linear / base ** (2 * i / self.dim)
            if self.factors:
                angle /= self.factors[i]
            result.append(pair * cmath.exp(1j * angle))
        return result

    def heads_of(self, n, kind, h, count):
        b = f"blk.{n}."
        x = self.times(b + f"attn_{kind}.weight", h)
        if b + f"attn_{kind}.bias" in self.t:
            x = [v + bias for v, bias in zip(x, self.t[b + f"attn_{kind}.bias"][1])]
        heads = [x[i * self.dim:(i + 1) * self.dim] for i in range(count)]
        if b + f"attn_{kind}_norm.weight" in self.t:
            heads = [self.norm(b + f"attn_{kind}_norm.weight", head) for head in heads]
        return heads

    def attention(self, n, position, h):
        queries = [self.turned(n, position, head) for head in self.heads_of(n, "q", h, self.heads)]
        keys = [self.turned(n, position, head) for head in self.heads_of(n, "k", h, self.kv_heads)]
        self.past[n].append((keys, self.heads_of(n, "v", h, self.kv_heads)))
        seen = self.past[n]
        if self.window is not None and n % 6 != 5:
            seen = seen[-self.window:]
        mixed = []
        for number, query in enumerate(queries):
            shared = number * self.kv_heads // self.heads
            scores = []
            for keys, _ in seen:
                # The real part of a · conj(b) is the product of the two as plane vectors.
                score = sum((a * b.conjugate()).real for a, b in zip(query, keys[shared])) / math.sqrt(self.dim)
                if self.attention_cap is not None:
                    score = self.attention_cap * math.tanh(score / self.attention_cap)
                scores.append(math.exp(score))
            for element in range(self.dim):
                total = math.fsum(w * values[shared][element] for w, (_, values) in zip(scores, seen))
                mixed.append(total / math.fsum(scores))
        return self.times(f"blk.{n}.attn_output.weight", mixed)

    def gate(self, x):
        if self.architecture == "gemma3":
            return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x / (1 + math.exp(-x))

    def step(self, position, token):
        x = self.rows("token_embd.weight")[token]
        if self.architecture == "gemma3":
            x = [v * math.sqrt(self.hidden) for v in x]
        for n in range(self.blocks):
            b = f"blk.{n}."
            y = self.attention(n, position, self.norm(b + "attn_norm.weight", x))
            if self.architecture == "gemma3":
                y = self.norm(b + "post_attention_norm.weight", y)
            x = [u + v for u, v in zip(x, y)]
            h = self.norm(b + "ffn_norm.weight", x)
            gates, ups = self.times(b + "ffn_gate.weight", h), self.times(b + "ffn_up.weight", h)
            y = self.times(b + "ffn_down.weight", [self.gate(g) * u for g, u in zip(gates, ups)])
            if self.architecture == "gemma3":
                y = self.norm(b + "post_ffw_norm.weight", y)
            x = [u + v for u, v in zip(x, y)]
        x = self.norm("output_norm.weight", x)
        logits = self.times("output.weight" if self.output else "token_embd.weight", x)
        if self.logit_cap is not None:
            logits = [self.logit_cap * math.tanh(v / self.logit_cap) for v in logits]
        return logits


def main():
    models = {
        "llama, one block, one head of 2": Model(1, "llama", 1, 3, 1, 1, 2, 2, 5),
        "llama, a factor for each pair": Model(2, "llama", 2, 4, 2, 2, 4, 3, 6, output=True, factors=[1.0, 4.0]),
        "qwen2, shared keys": Model(3, "qwen2", 2, 4, 4, 2, 4, 3, 6, base=1e6),
        "qwen3, scaled positions": Model(4, "qwen3", 2, 4, 3, 1, 4, 3, 6, base=1e6, linear=4.0),
        "gemma3, window of 2": Model(5, "gemma3", 7, 4, 2, 1, 4, 3, 6, base=1e6, linear=8.0, window=2),
        "gemma3, soft caps": Model(6, "gemma3", 1, 4, 2, 2, 2, 3, 5, window=3, attention_cap=0.5, logit_cap=2.0),
    }
    tokens = [1, 4, 0, 2, 3, 4]
    print(json.dumps({name: {
        "metadata": model.metadata(),
        "tensors": {key: {"dimensions": dimensions, "values": values} for key, (dimensions, values) in model.t.items()},
        "tokens": tokens,
        "logits": [model.step(position, token) for position, token in enumerate(tokens)],
    } for name, model in models.items()}, separators=(",", ":")).replace('},"', '},\n"'))


main()
