"""Who trains: one step of equal language models, and what any reversible one must do at least.

A step is forward, loss and backward, without an optimiser, which would be the same for all. Both
models have 6 layers, local and LSH in turn, d_model 256, d_ff 1024, 4 heads of 64 and no dropout.
"""

import torch
from torch import Tensor, nn

from reformer_core import ReformerConfig, ReformerLM
from tests.benchmarks.case import Case, Contestant, Ready

VOCAB_SIZE = 320
D_MODEL, D_FF, N_LAYERS = 256, 1024, 6
LAYERS = ("local", "lsh")
PIECES = 4
"""How many pieces feed-forward is cut into, by those who cut it."""


def tokens_of(case: Case) -> Tensor:
    """Draw one sequence."""
    return torch.randint(VOCAB_SIZE, (1, case.length), device=case.device)


def trainable(model: nn.Module, loss) -> Ready:
    """Make a model ready, given what computes its loss."""
    model.train()
    return Ready(
        forward=torch.no_grad()(loss),
        step=lambda: loss().backward(),
        forget=lambda: model.zero_grad(set_to_none=True),
    )


def our_model(
    case: Case, count_repeats: bool = False, pieces: int = 1, kept_layers: int = 0
) -> ReformerLM:
    """Make this project's language model."""
    return ReformerLM(
        ReformerConfig(
            vocab_size=VOCAB_SIZE,
            d_model=D_MODEL,
            d_ff=D_FF,
            n_layers=N_LAYERS,
            n_heads=case.n_heads,
            d_head=case.d_head,
            attention=LAYERS,
            n_hashes=case.n_hashes,
            n_buckets=case.n_buckets(),
            chunk_length=case.chunk_length,
            max_length=case.length,
            count_repeats=count_repeats,
            ff_chunks=pieces,
            kept_layers=kept_layers,
        )
    ).to(case.device)


def prepare_ours(case: Case, **ours: bool | int) -> Ready:
    """Ready this project's language model."""
    model, tokens = our_model(case, **ours), tokens_of(case)
    return trainable(model, lambda: model.loss(tokens))


def hugging_face_model(case: Case, pieces: int = 1) -> nn.Module:
    """Make Hugging Face's language model; keeping its layers' states for generation is off."""
    from transformers import ReformerConfig, ReformerModelWithLMHead

    n_buckets = case.n_buckets()
    config = ReformerConfig(
        is_decoder=True,
        vocab_size=VOCAB_SIZE,
        hidden_size=D_MODEL,
        feed_forward_size=D_FF,
        attn_layers=list(LAYERS) * (N_LAYERS // len(LAYERS)),
        num_attention_heads=case.n_heads,
        attention_head_size=case.d_head,
        num_hashes=case.n_hashes,
        num_buckets=n_buckets if isinstance(n_buckets, int) else list(n_buckets),
        lsh_attn_chunk_length=case.chunk_length,
        local_attn_chunk_length=case.chunk_length,
        lsh_num_chunks_after=0,
        local_num_chunks_after=0,
        axial_pos_embds=False,
        max_position_embeddings=case.length,
        hidden_act="gelu",
        chunk_size_feed_forward=0 if pieces == 1 else case.length // pieces,
        hidden_dropout_prob=0.0,
        lsh_attention_probs_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
        use_cache=False,
    )
    return ReformerModelWithLMHead(config).to(case.device)


def prepare_hugging_face(case: Case, pieces: int = 1) -> Ready:
    """Ready Hugging Face's language model."""
    model, tokens = hugging_face_model(case, pieces), tokens_of(case)
    return trainable(model, lambda: model(input_ids=tokens, labels=tokens).loss)


class Projections(nn.Module):
    """What an attention layer multiplies by weights, without the attention between."""

    def __init__(self, d_inner: int, kind: str) -> None:
        super().__init__()
        n_inputs = 3 if kind == "local" else 2
        self.inputs = nn.Linear(D_MODEL, n_inputs * d_inner, bias=False)
        self.out = nn.Linear(d_inner, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project in, and one part of that out again."""
        return self.out(self.inputs(x)[..., : self.out.in_features])


def floor_layers(case: Case) -> nn.ModuleList:
    """Make the projections and feed-forwards of all layers."""
    layers = nn.ModuleList()
    for layer in range(N_LAYERS):
        layers.append(Projections(case.n_heads * case.d_head, LAYERS[layer % len(LAYERS)]))
        layers.append(nn.Sequential(nn.Linear(D_MODEL, D_FF), nn.GELU(), nn.Linear(D_FF, D_MODEL)))
    return layers.to(case.device)


def prepare_floor(case: Case) -> Ready:
    """Ready what any reversible model does: every weight's product twice forward, once backward."""
    layers = floor_layers(case)
    x = case.randn(1, case.length, D_MODEL)

    @torch.no_grad()
    def forward() -> None:
        for layer in layers:
            layer(x)

    def step() -> None:
        forward()
        for layer in reversed(layers):
            layer(x.detach().requires_grad_()).backward(x)

    return Ready(forward=forward, step=step, forget=lambda: layers.zero_grad(set_to_none=True))


TRAINING = (
    Contestant(
        key="ours_once",
        label="ReformerLM, each pair once",
        kind="ours",
        counts_repeats=False,
        prepare=prepare_ours,
    ),
    Contestant(
        key="ours_repeats",
        label="ReformerLM, repeats counted",
        kind="ours",
        counts_repeats=True,
        prepare=lambda case: prepare_ours(case, count_repeats=True),
    ),
    Contestant(
        key="hugging_face",
        label="Hugging Face's ReformerModelWithLMHead",
        kind="peer",
        counts_repeats=True,
        prepare=prepare_hugging_face,
        note="it cannot mask other buckets",
    ),
    Contestant(
        key="ours_in_pieces",
        label=f"ReformerLM, repeats counted, feed-forward in {PIECES} pieces",
        kind="ours",
        counts_repeats=True,
        prepare=lambda case: prepare_ours(case, count_repeats=True, pieces=PIECES),
    ),
    Contestant(
        key="ours_last_kept",
        label="ReformerLM, repeats counted, kept_layers=1",
        kind="ours",
        counts_repeats=True,
        prepare=lambda case: prepare_ours(case, count_repeats=True, kept_layers=1),
        note="the last layer, whose backward comes next, keeps what that needs",
    ),
    Contestant(
        key="hugging_face_in_pieces",
        label=f"Hugging Face's, feed-forward in {PIECES} pieces",
        kind="peer",
        counts_repeats=True,
        prepare=lambda case: prepare_hugging_face(case, pieces=PIECES),
        note="it cannot mask other buckets",
    ),
    Contestant(
        key="floor",
        label="projections and feed-forward alone, with replay",
        kind="bound",
        prepare=prepare_floor,
        note="every product with a weight twice forward and once backward",
    ),
)
