"""A transformer language model of 100 million parameters with random weights, text for it, and its perplexity.

As a program it writes the weights: ``python model.py WEIGHTS.safetensors [OPT or GPT2] [training steps]``.
"""

import math
import re
import sys
import zlib
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

VOCABULARY = 20_000
LENGTH = 128
BATCH = 4


def build(family: str = "OPT") -> nn.Module:
    torch.manual_seed(0)
    same = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "use_cache": False}
    if family == "GPT2":
        return GPT2LMHeadModel(GPT2Config(n_positions=LENGTH, **same))
    return OPTForCausalLM(OPTConfig(max_position_embeddings=LENGTH, **same))


def sequences() -> list[dict[str, Tensor]]:
    """Python's own documentation, as it comes with every Python; a word is a token by its checksum."""
    words = re.findall(r"\w+|[^\w\s]", " ".join(topics[name] for name in sorted(topics)))
    tokens = torch.tensor([zlib.crc32(word.encode()) % VOCABULARY for word in words])
    starts = range(0, len(tokens) - LENGTH, LENGTH)
    return [{"input_ids": tokens[i : i + LENGTH], "labels": tokens[i + 1 : i + 1 + LENGTH]} for i in starts]


def data() -> DataLoader:
    return DataLoader(sequences()[:8], batch_size=BATCH)


def perplexity(output, labels):
    # The labels are the next tokens already.
    losses = cross_entropy(output.logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return losses, (labels != -100).sum()


perplexity.finish = lambda total, count: math.exp(total / count)


def train(model: nn.Module, steps: int) -> None:
    """A little, on what is not evaluated."""
    generator = torch.Generator().manual_seed(0)
    loader = iter(DataLoader(sequences()[8:], batch_size=BATCH, shuffle=True, generator=generator))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(steps):
        batch = next(loader)
        losses, count = perplexity(model(input_ids=batch["input_ids"]), batch["labels"])
        optimizer.zero_grad()
        (losses / count).backward()
        optimizer.step()


def main(path: str, family: str = "OPT", steps: str = "0") -> None:
    from noiserobust.models.weights import write_weights

    model = build(family)
    train(model, int(steps))
    write_weights(path, model, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
