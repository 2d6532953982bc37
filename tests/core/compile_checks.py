"""Compile and export in a process of its own: `python -m tests.core.compile_checks NAME`.

The shape checker of the tests wraps every function, and a graph cannot hold what it does.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from reformer_core import ReformerConfig, ReformerLM
from reformer_core.layers import Context, LSHSelfAttention

MAX_LENGTH = 64
# Shorter than a chunk, one chunk, not a multiple, in fewer pieces than asked for, the longest.
LENGTHS = (13, 2, 3, 8, 9, 33, MAX_LENGTH)

CONFIGS = {
    "chunks": {"ff_chunks": 2, "loss_chunks": 2, "axial_shape": (8, 8), "axial_dims": (8, 8)},
    "sliding": {"window": "sliding", "ff_chunks": 4},
    "both ways": {"causal": False, "n_buckets": (4, 4), "within_bucket": False},
}


def model(**config) -> ReformerLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 16, "n_layers": 3, "n_heads": 2, "n_hashes": 2}
    pattern = {"attention": ("local", "lsh", "full"), "chunk_length": 8, "max_length": MAX_LENGTH}
    return ReformerLM(ReformerConfig(**sizes | pattern | config))


def batches(padded: bool, sizes: tuple[int, ...]):
    """Make tokens, and padding where asked for, of every length."""
    for length in LENGTHS:
        for batch in sizes:
            tokens = torch.randint(0, 20, (batch, length))
            real = torch.randint(1, length + 1, (batch, 1))
            yield (tokens, torch.arange(length) >= real) if padded else (tokens,)


@torch.no_grad()
def assert_same_logits(eager: ReformerLM, traced: Callable[..., Tensor], batches) -> None:
    for inputs in batches:
        torch.testing.assert_close(traced(*inputs), eager(*inputs), atol=2e-6, rtol=2e-6)


def n_graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def evaluation(name: str, padded: bool, backend: str = "aot_eager") -> None:
    """One graph without a break gives eager's logits, whatever the length."""
    eager = model(**CONFIGS[name]).eval()
    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend=backend)
    assert_same_logits(eager, compiled, batches(padded, (3,)))
    assert n_graphs() == 1, f"{n_graphs()} graphs"


def export(name: str, padded: bool) -> None:
    """One exported program gives eager's logits, whatever the length and the batch."""
    eager = model(**CONFIGS[name]).eval()
    axes = {
        0: torch.export.Dim("batch", max=1024),
        1: torch.export.Dim("length", max=MAX_LENGTH),
    }
    example = next(batches(padded, (3,)))
    with torch.no_grad():
        program = torch.export.export(eager, example, dynamic_shapes=(axes,) * len(example))
    assert_same_logits(eager, program.module(), batches(padded, (2, 3, 5)))


def attention(backend: str = "aot_eager", **rule) -> None:
    """One graph without a break trains LSH attention, with the rotations of every step."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    layer = LSHSelfAttention(16, 2, 8, max_length=64, chunk_length=8, layer=3, **rule)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    buckets = []
    for step in (5, 6):
        x, seed = torch.randn(2, 30, 16), 10 + step
        eager = trained(layer, layer, x, step, seed)
        graph = trained(layer, compiled, x, torch.tensor(step), seed)
        for one, other in zip(eager, graph, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        buckets.append(eager[1])
    assert n_graphs() == 1, f"{n_graphs()} graphs"
    assert not torch.equal(*buckets), "both steps hash with the same rotations"


def trained(
    layer: LSHSelfAttention, attend: Callable, x: Tensor, step: int | Tensor, seed: int
) -> list[Tensor]:
    """Return output, buckets and all gradients, dropping what the seed says."""
    torch.manual_seed(seed)
    leaf, padding = x.clone().requires_grad_(), torch.arange(30).expand(2, -1) > 25
    out, memo = attend(leaf, Context(padding=padding, step=step))
    return [out, memo, *torch.autograd.grad((out**2).sum(), [leaf, *layer.parameters()])]


def training(reversible: bool, kept_layers: int = 0) -> None:
    """The compiled loss has eager's value and gradients, step after step."""
    remembers = {"reversible": reversible, "kept_layers": kept_layers}
    eager, other = (model(**CONFIGS["sliding"], **remembers) for _ in range(2))
    compiled = torch.compile(other.loss, fullgraph=not reversible, backend="aot_eager")
    for _ in range(2):
        tokens = torch.randint(0, 20, (2, 24))
        losses = eager.loss(tokens), compiled(tokens)
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses)
        for one, same in zip(eager.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one.grad, same.grad, atol=1e-6, rtol=1e-5)
    assert int(eager.hash_step) == int(other.hash_step) == 2
    # What is reversible runs as eager code between graphs: a replay repeats what it did.
    most = 3 + bool(kept_layers) if reversible else 1
    assert n_graphs() <= most, f"{n_graphs()} graphs"


CHECKS = {
    "evaluation in chunks": lambda: evaluation("chunks", padded=True),
    "evaluation in windows": lambda: evaluation("sliding", padded=False),
    "export in chunks": lambda: export("chunks", padded=False),
    "export in windows": lambda: export("sliding", padded=True),
    "export both ways": lambda: export("both ways", padded=True),
    "attention": lambda: [
        attention(dropout=0.3),
        attention(causal=False, window="sliding", count_repeats=True),
        attention(within_bucket=False, n_buckets=(4, 4)),
    ],
    "attention by inductor": lambda: attention(backend="inductor", n_hashes=2),
    "reversible training": lambda: training(reversible=True),
    "reversible training, a layer kept": lambda: training(reversible=True, kept_layers=1),
    "training": lambda: training(reversible=False),
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
