"""ReformerLM: the paper's equations end to end, what a trace shows, and what is refused."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from reformer_core.attention import dense_lsh_attention
from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM
from tests import oracles
from tests.core.counting import LiveBytes, Worst, saved_bytes, without_shape_checker

VOCAB = 11
PATTERNS = [("lsh",), ("local",), ("full",), ("local", "lsh"), ("full", "lsh", "local")]


def build(dtype=torch.float64, seed=0, **fields) -> ReformerLM:
    small = {
        "vocab_size": VOCAB,
        "d_model": 8,
        "n_layers": 3,
        "n_heads": 2,
        "d_ff": 12,
        "n_hashes": 2,
        "chunk_length": 4,
        "max_length": 24,
    }
    torch.manual_seed(seed)
    return ReformerLM(ReformerConfig(**small | fields)).to(dtype)


def some_tokens(batch=2, length=17, seed=1) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded_at_the_end(length=17) -> Tensor:
    return torch.arange(length) >= torch.tensor([[length - 5], [length]])


def gradients_of(model: ReformerLM, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def assert_same_loss_and_gradients(one: ReformerLM, other: ReformerLM, **inputs: Tensor) -> None:
    worst = Worst("models", 1e-10)
    found = []
    for model in (one, other):
        torch.manual_seed(5)
        loss = model.loss(some_tokens(), **inputs)
        found.append([loss, *gradients_of(model, loss)])
    for mine, its in zip(*found, strict=True):
        worst.check(mine, its)


# ---------------------------------------------------------------- the equations, end to end


def normalised(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def by_hand(model: ReformerLM, tokens: Tensor, padding: Tensor | None) -> np.ndarray:
    """Compute the logits in NumPy from the weights, and from the buckets that a trace shows."""
    config, trace = model.config, model.trace(tokens, padding)
    w = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    rows = []
    for b, sequence in enumerate(tokens.tolist()):
        hidden = None if padding is None else padding[b].tolist()
        if config.axial_shape is None:
            places = w["embed.positions.table"][: len(sequence)]
        else:
            tables = [w[f"embed.positions.tables.{i}"] for i in range(len(config.axial_shape))]
            places = np.stack([oracles.axial_position(p, tables) for p in range(len(sequence))])
        x = w["embed.tokens.weight"][sequence] + places
        blocks = [
            (
                functools.partial(attention, w, config, i, trace.layers[i], b, hidden),
                functools.partial(feed_forward, w, f"layers.{i}.g.piece."),
            )
            for i in range(config.n_layers)
        ]
        both = np.concatenate(oracles.reversible_forward(x, x, blocks), -1)
        both = normalised(both, w["norm.weight"], w["norm.bias"])
        rows.append(both @ w["head.weight"].T + w["head.bias"])
    return np.stack(rows)


def attention(w, config, layer, seen, b, hidden, x) -> np.ndarray:
    prefix = f"layers.{layer}.f."
    x = normalised(x, w[prefix + "norm.weight"], w[prefix + "norm.bias"])
    kind, heads = config.attention_of(layer), config.n_heads
    windows = {"causal": config.causal, "window": config.window}

    def split(name: str) -> np.ndarray:
        projected = x @ w[f"{prefix}attention.{name}.weight"].T
        return projected.reshape(len(x), heads, -1).transpose(1, 0, 2)

    attended = []
    for h in range(heads):
        values = split("values")[h]
        if kind == "local":
            local = {"chunk_length": config.local_chunk_length or config.chunk_length}
            queries, keys = split("queries")[h], split("keys")[h]
            part = oracles.local_attention(
                queries, keys, values, **windows, **local, padding=hidden
            )
        elif kind == "full":
            part = oracles.full_attention(
                split("qk")[h], values, causal=config.causal, padding=hidden
            )
        else:
            rule = {
                "chunk_length": config.chunk_length,
                "chunks_before": config.chunks_before,
                "chunks_after": 0 if config.causal else 1,
                "within_bucket": config.within_bucket,
            }
            rounds = [
                oracles.seen_in_round(buckets, **windows, **rule, padding=hidden)
                for buckets in seen.plan.buckets[b, h].tolist()
            ]
            repeats = config.count_repeats
            part = oracles.lsh_attention(
                split("qk")[h], values, rounds, padding=hidden, count_repeats=repeats
            )
        attended.append(part)
    return np.concatenate(attended, -1) @ w[prefix + "attention.out.weight"].T


def feed_forward(w, prefix, x) -> np.ndarray:
    x = normalised(x, w[prefix + "norm.weight"], w[prefix + "norm.bias"])
    middle = x @ w[prefix + "w_in.weight"].T + w[prefix + "w_in.bias"]
    middle = middle * (1 + np.vectorize(math.erf)(middle / math.sqrt(2))) / 2
    return middle @ w[prefix + "w_out.weight"].T + w[prefix + "w_out.bias"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"window": "sliding", "local_chunk_length": 3},
        {"causal": False, "within_bucket": False},
        {"count_repeats": True, "d_head": 3, "n_buckets": (2, 4)},
        {"axial_shape": (4, 6), "axial_dims": (3, 5), "ff_chunks": 3, "loss_chunks": 4},
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_the_papers_equations(pattern, fields, padded):
    model = build(attention=pattern, **fields).eval()
    padding = padded_at_the_end() if padded else None
    logits = model(some_tokens(), padding)
    np.testing.assert_allclose(logits.detach(), by_hand(model, some_tokens(), padding), atol=1e-10)


def test_a_model_has_the_weights_that_its_config_says():
    model = build(d_ff=None, d_head=3, attention=("lsh", "local"), n_layers=2)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert shapes["layers.0.f.attention.qk.weight"] == (2 * 3, 8)
    assert shapes["layers.1.f.attention.queries.weight"] == (2 * 3, 8)
    assert shapes["layers.0.g.piece.w_in.weight"] == (4 * 8, 8)
    assert shapes["norm.weight"] == (2 * 8,)
    assert shapes["head.weight"] == (VOCAB, 2 * 8)
    embedding = {name for name in shapes if name.startswith("embed.")}
    assert embedding == {"embed.tokens.weight", "embed.positions.table"}


def test_token_vectors_start_with_standard_deviation_one():
    deviation = build(vocab_size=4000).embed.tokens.weight.std().item()
    assert deviation == pytest.approx(1, abs=0.02)


def test_every_weight_gets_a_gradient():
    model = build(attention=("local", "lsh", "full"), max_length=17)
    model.loss(some_tokens()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad.abs().sum() > 0, name


# ---------------------------------------------------------------- lengths, rows, padding


@pytest.mark.parametrize("window", ["chunks", "sliding"])
@pytest.mark.parametrize("pattern", [("lsh",), ("local", "full")])
def test_any_length_up_to_the_longest_works(pattern, window):
    model = build(attention=pattern, window=window, ff_chunks=3, loss_chunks=2, n_layers=2)
    for length in range(1, 25):
        logits = model(some_tokens(length=length))
        assert logits.shape == (2, length, VOCAB)
        assert logits.isfinite().all()
        if length > 1:
            assert model.loss(some_tokens(length=length)).isfinite()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_does_not_depend_on_the_rows_beside_it(pattern):
    model = build(attention=pattern).eval()
    logits = model(some_tokens(batch=3))
    for row in range(3):
        alone = model(some_tokens(batch=3)[row : row + 1])
        torch.testing.assert_close(alone[0], logits[row])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("window", ["chunks", "sliding"])
@pytest.mark.parametrize("causal", [True, False])
def test_neither_the_amount_nor_the_content_of_padding_changes_a_real_position(
    pattern, window, causal
):
    model = build(attention=pattern, window=window, causal=causal).eval()
    tokens = some_tokens(length=10)
    truth = model(tokens)
    for amount in (0, 1, 7, 14):
        longer = torch.cat([tokens, some_tokens(length=amount, seed=amount)], 1)
        padding = (torch.arange(10 + amount) >= 10).expand(2, -1)
        torch.testing.assert_close(model(longer, padding)[:, :10], truth, atol=1e-10, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_sliding_windows_logits_depend_on_no_later_token(pattern):
    model = build(attention=pattern, window="sliding").eval()
    tokens = some_tokens(length=20)
    logits = model(tokens)
    for t in (0, 3, 10, 18):
        changed = tokens.clone()
        changed[:, t + 1 :] = (changed[:, t + 1 :] + 3) % VOCAB
        assert not torch.equal(changed, tokens)
        torch.testing.assert_close(
            model(changed)[:, : t + 1], logits[:, : t + 1], atol=1e-12, rtol=0
        )
        torch.testing.assert_close(
            model(tokens[:, : t + 1]), logits[:, : t + 1], atol=1e-12, rtol=0
        )


def test_with_chunks_later_tokens_move_earlier_logits_of_an_lsh_model_but_of_no_other():
    tokens = some_tokens(batch=8, length=24)
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % VOCAB
    moved = {}
    for kind in ("lsh", "local", "full"):
        model = build(attention=(kind,), window="chunks").eval()
        moved[kind] = (model(changed) - model(tokens))[:, :20].abs().max().item()
    assert moved["lsh"] > 1e-3
    assert moved["local"] < 1e-12
    assert moved["full"] < 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_no_weight_ever_falls_on_a_later_token(pattern, window):
    model = build(attention=pattern, window=window).eval()
    seen = []
    model.embed.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(some_tokens())
    (gradient,) = torch.autograd.grad(logits[:, 9].sum(), seen)
    assert (gradient[:, 10:] == 0).all()
    assert (gradient[:, 9] != 0).any()


def test_a_bidirectional_model_looks_both_ways():
    model = build(attention=("full",), causal=False).eval()
    changed = some_tokens()
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    assert not torch.allclose(model(changed)[:, 0], model(some_tokens())[:, 0])


# ---------------------------------------------------------------- the loss


def test_the_loss_is_the_mean_cross_entropy_of_the_next_token():
    model = build().eval()
    logits = model(some_tokens()).detach().numpy()
    expected = oracles.cross_entropy(logits, some_tokens().numpy())
    assert model.loss(some_tokens()).item() == pytest.approx(expected, abs=1e-12)


def test_weights_weigh_the_prediction_of_the_token_they_stand_at():
    model = build().eval()
    weights = torch.rand(2, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[weights < 0.3] = 0
    logits = model(some_tokens()).detach().numpy()
    expected = oracles.cross_entropy(logits, some_tokens().numpy(), weights.numpy())
    assert model.loss(some_tokens(), weights).item() == pytest.approx(expected, abs=1e-12)
    assert model.loss(some_tokens(), 7 * weights).item() == pytest.approx(expected, abs=1e-12)
    weights[:, 0] = 1e6
    assert model.loss(some_tokens(), weights).item() == pytest.approx(expected, abs=1e-12)


def test_padding_weighs_nothing():
    model = build(window="sliding").eval()
    padding = padded_at_the_end()
    logits = model(some_tokens(), padding).detach().numpy()
    weights = (~padding).double().numpy()
    expected = oracles.cross_entropy(logits, some_tokens().numpy(), weights)
    assert model.loss(some_tokens(), padding=padding).item() == pytest.approx(expected, abs=1e-12)


def test_what_padding_predicts_weighs_nothing():
    model = build(window="sliding").eval()
    padding = padded_at_the_end().flip(1)
    logits = model(some_tokens(), padding).detach().numpy()
    predicted = ~padding
    predicted[:, 1:] &= ~padding[:, :-1]
    expected = oracles.cross_entropy(logits, some_tokens().numpy(), predicted.double().numpy())
    assert model.loss(some_tokens(), padding=padding).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss_chunks", [2, 5, 16, 99])
def test_any_number_of_loss_and_feed_forward_pieces_is_the_same_function(loss_chunks):
    weights = torch.rand(2, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pieces = build(loss_chunks=loss_chunks, ff_chunks=4)
    assert_same_loss_and_gradients(pieces, build(), weights=weights)
    torch.testing.assert_close(pieces.eval()(some_tokens()), build().eval()(some_tokens()))


def test_loss_in_pieces_sees_the_dropout_of_its_forward():
    model = build(dropout=0.5, loss_chunks=4)
    loss = model.loss(some_tokens())
    (gradient,) = torch.autograd.grad(loss, model.head.bias)
    assert gradient.sum().abs() < 1e-12  # softmax minus one-hot, whatever was dropped
    assert gradient.abs().sum() > 0


def peak(with_gradient: bool = True, dtype=torch.float32, **fields: object) -> int:
    model = build(dtype, vocab_size=500, max_length=256, n_layers=1, attention=("local",), **fields)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    tokens = some_tokens(1, 256)
    with LiveBytes() as memory, torch.set_grad_enabled(with_gradient):
        loss = model.loss(tokens)
        if with_gradient:
            loss.backward()
    return memory.peak


@pytest.mark.parametrize("with_gradient", [True, False])
def test_more_loss_pieces_need_less_memory_forward_and_backward(with_gradient):
    whole, four, sixteen = (peak(with_gradient, loss_chunks=n) for n in (1, 4, 16))
    assert four < 0.5 * whole
    assert sixteen < 0.6 * four
    assert sixteen < 256 * 500 * 4


def test_more_feed_forward_pieces_need_less_memory_in_the_whole_step():
    whole, sixteen = (peak(d_ff=2000, ff_chunks=n, loss_chunks=16) for n in (1, 16))
    assert sixteen < 0.3 * whole


# ---------------------------------------------------------------- reversible or not


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dropout": 0.2, "attention_dropout": 0.3},
        {"ff_chunks": 3, "loss_chunks": 2, "window": "sliding"},
        {"ff_chunks": 3, "dropout": 0.2},
        {"causal": False, "count_repeats": True},
        {"kept_layers": 1, "dropout": 0.2, "attention_dropout": 0.3, "ff_chunks": 2},
    ],
)
def test_reversible_or_not_is_the_same_function(pattern, fields):
    one, other = (build(attention=pattern, reversible=r, **fields) for r in (True, False))
    assert_same_loss_and_gradients(one, other, padding=padded_at_the_end())


def test_reversible_keeps_nothing_per_layer_but_buckets():
    def kept(n_layers: int, reversible: bool) -> dict[torch.dtype, int]:
        model = build(n_layers=n_layers, reversible=reversible, max_length=64)
        tokens = some_tokens(length=64)
        with saved_bytes(besides=[tokens, *model.parameters()]) as bytes_of:
            loss = model.loss(tokens)
        assert loss.requires_grad
        return dict(bytes_of)

    shallow, deep = kept(1, True), kept(7, True)
    memo = 2 * 2 * 2 * 64  # batch, heads, rounds, length: one byte each
    assert deep.pop(torch.int8) - shallow.pop(torch.int8) == 6 * memo
    assert deep == shallow
    assert kept(7, False)[torch.float64] > 4 * kept(1, False)[torch.float64]


def test_the_peak_of_a_reversible_step_does_not_grow_with_depth():
    def peak_of(n_layers: int, reversible: bool) -> int:
        model = build(torch.float32, n_layers=n_layers, reversible=reversible, max_length=256)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        with LiveBytes() as memory:
            model.loss(some_tokens(4, 256)).backward()
        return memory.peak

    assert peak_of(9, True) < 1.25 * peak_of(2, True)
    assert peak_of(18, False) > 2 * peak_of(2, False)


@pytest.mark.parametrize("reversible", [True, False])
def test_under_autocast_streams_stay_float32_and_the_gradient_is_close(reversible):
    def gradients(autocast: bool) -> list[Tensor]:
        model = build(torch.float32, attention=("local", "full"), reversible=reversible)
        dtypes = []
        model.norm.register_forward_pre_hook(lambda module, inputs: dtypes.append(inputs[0].dtype))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model.loss(some_tokens())
        assert loss.dtype == torch.float32
        assert set(dtypes) == {torch.float32}
        return gradients_of(model, loss)

    mine, its = gradients(True), gradients(False)
    for got, truth in zip(mine, its, strict=True):
        assert (got - truth).norm() < 0.05 * truth.norm() + 1e-3


def test_other_weights_can_be_run_and_differentiated():
    model, other = build(), build(seed=9)
    weights = {name: w.detach().clone().requires_grad_() for name, w in other.named_parameters()}
    logits = functional_call(model, weights, (some_tokens(),))
    truth = other(some_tokens())
    torch.testing.assert_close(logits, truth)
    mine = torch.autograd.grad(logits.sin().sum(), list(weights.values()))
    its = torch.autograd.grad(truth.sin().sum(), list(other.parameters()))
    for got, expected in zip(mine, its, strict=True):
        torch.testing.assert_close(got, expected)


def test_gradients_flow_in_evaluation_mode():
    one, other = build(dropout=0.3).eval(), build(dropout=0.3, reversible=False).eval()
    assert_same_loss_and_gradients(one, other)


# ---------------------------------------------------------------- hashing over time


def test_evaluation_repeats_exactly_whatever_was_trained_before():
    model = build(dropout=0.3, attention_dropout=0.3).eval()
    first = model(some_tokens())
    model.train()
    for _ in range(3):
        model.loss(some_tokens())
    model.eval()
    assert torch.equal(model(some_tokens()), first)


def test_every_training_forward_hashes_anew_and_evaluation_does_not_count():
    model = build(n_buckets=16, n_hashes=4)
    assert model.hash_step.dtype == torch.int64
    buckets = []
    for step in range(3):
        assert model.hash_step == step
        buckets.append(model.trace(some_tokens()).layers[0].plan.buckets)
        assert model.hash_step == step
        (model if step else model.loss)(some_tokens())
    assert not torch.equal(buckets[0], buckets[1])
    assert not torch.equal(buckets[1], buckets[2])
    model.eval()
    model(some_tokens())
    model.loss(some_tokens())
    assert model.hash_step == 3


def test_the_step_is_in_the_state_and_brings_the_same_hashes_back():
    model = build(n_buckets=16, n_hashes=4)
    for _ in range(5):
        model(some_tokens())
    again = build(n_buckets=16, n_hashes=4, seed=3)
    again.load_state_dict(model.state_dict())
    assert again.hash_step == 5
    assert torch.equal(again(some_tokens()), model(some_tokens()))


def test_layers_and_seeds_hash_differently():
    traces = [build(hash_seed=seed, n_buckets=16).eval().trace(some_tokens()) for seed in (0, 1)]
    rotations = [
        block.f.attention.evaluation_rotations
        for seed in (0, 1)
        for block in build(hash_seed=seed).layers
    ]
    for i, one in enumerate(rotations):
        assert not any(torch.equal(one, other) for other in rotations[:i])
    assert not torch.equal(traces[0].layers[0].plan.buckets, traces[1].layers[0].plan.buckets)


def test_without_dropout_training_leaves_the_global_generator_alone():
    model, before = build(), torch.get_rng_state()
    model.loss(some_tokens()).backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_falls_in_training_only():
    for fields in ({"dropout": 0.4}, {"attention_dropout": 0.4}):
        model = build(**fields)
        step = model.hash_step.clone()
        first = model(some_tokens())
        model.hash_step.copy_(step)
        assert not torch.equal(model(some_tokens()), first)
        torch.testing.assert_close(model.eval()(some_tokens()), build().eval()(some_tokens()))


# ---------------------------------------------------------------- the trace


@pytest.mark.parametrize("training", [True, False])
def test_a_trace_shows_what_the_next_pass_does(training):
    model = build(attention=("lsh", "local", "full"), n_buckets=8).train(training)
    outputs = []
    for block in model.layers:
        block.f.attention.register_forward_hook(
            lambda module, inputs, output: outputs.append(output[0])
        )
    trace = model.trace(some_tokens(), padded_at_the_end())
    outputs.clear()
    with torch.no_grad():
        logits = model(some_tokens(), padded_at_the_end())
    torch.testing.assert_close(trace.logits, logits)
    lsh = trace.layers[0]
    attended = dense_lsh_attention(lsh.qk, lsh.values, lsh.plan)
    merged = attended.transpose(1, 2).flatten(2)
    torch.testing.assert_close(model.layers[0].f.attention.out(merged), outputs[0])


def test_layers_are_traced_one_by_one_and_no_further_than_asked():
    model = build(attention=("lsh", "local", "full"), n_buckets=8)
    ran = []
    for block in model.layers:
        block.f.register_forward_hook(lambda module, inputs, output: ran.append(module))
    with pytest.raises(ValueError, match="a model that evaluates: call eval"):
        model.train().trace_layers(some_tokens())
    model.eval()
    wanted = model.trace(some_tokens(), padded_at_the_end()).layers
    ran.clear()
    passing = model.trace_layers(some_tokens(), padded_at_the_end())
    for count, whole in enumerate(wanted):
        layer = next(passing)
        assert len(ran) == count
        assert not layer.values.requires_grad
        torch.testing.assert_close(layer.values, whole.values)
        assert (layer.qk is None) == (whole.qk is None)
        assert layer.plan is whole.plan or torch.equal(layer.plan.order, whole.plan.order)
    with pytest.raises(StopIteration):
        next(passing)
    assert torch.is_grad_enabled()


def test_qk_and_plan_are_none_where_a_layer_has_none():
    trace = build(attention=("lsh", "local", "full")).trace(some_tokens())
    assert [layer.qk is None for layer in trace.layers] == [False, True, False]
    assert [layer.plan is None for layer in trace.layers] == [False, True, True]
    for layer in trace.layers:
        assert layer.values.shape == (2, 2, 17, 4)


def test_the_plan_of_a_trace_follows_the_config():
    fields = {
        "n_hashes": 3,
        "n_buckets": (2, 4),
        "chunk_length": 5,
        "chunks_before": 2,
        "window": "sliding",
        "within_bucket": False,
    }
    plan = build(**fields).trace(some_tokens()).layers[0].plan
    assert plan.buckets.shape == (2, 2, 3, 17)
    assert (plan.n_buckets, plan.chunk_length, plan.chunks_before) == (8, 5, 2)
    assert (plan.window, plan.within_bucket, plan.causal) == ("sliding", False, True)
    assert build().trace(some_tokens()).layers[0].plan.chunks_after == 0
    assert build(causal=False).trace(some_tokens()).layers[0].plan.chunks_after == 1


def test_a_sequence_that_fits_in_one_chunk_still_has_its_plan():
    model = build(chunk_length=24, n_buckets=4).eval()
    plan = model.trace(some_tokens(length=5)).layers[0].plan
    assert plan.buckets.shape == (2, 2, 2, 5)
    seen = plan.visible().any(2)
    assert seen.any()
    assert not seen.all()


def test_a_trace_changes_nothing():
    model = build(n_buckets=8)
    before = copy.deepcopy(model.state_dict())
    trace = model.trace(some_tokens())
    assert not trace.logits.requires_grad
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_looking_at_a_model_in_training_draws_nothing_from_the_global_generator():
    model = build(dropout=0.3, attention_dropout=0.3)
    before = torch.get_rng_state()
    model.trace(some_tokens())
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- copies and dtypes


def test_a_state_dict_makes_the_same_model():
    model, other = build(attention=("local", "lsh")), build(attention=("local", "lsh"), seed=8)
    assert not torch.allclose(other.eval()(some_tokens()), model.eval()(some_tokens()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(some_tokens()), model(some_tokens()))


def test_a_copy_is_the_same_and_independent():
    model = build()
    other = copy.deepcopy(model)
    assert torch.equal(other(some_tokens()), model(some_tokens()))
    other.loss(some_tokens()).backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert other.config == model.config


def test_double_and_single_precision_agree():
    single, double = build(torch.float32).eval(), build(torch.float64).eval()
    torch.testing.assert_close(
        single(some_tokens()).double(), double(some_tokens()), atol=1e-4, rtol=1e-4
    )


def test_a_bfloat16_model_runs_and_learns():
    model = build(torch.bfloat16)
    loss = model.loss(some_tokens())
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_tokens_of_32_bits_do_as_well():
    model = build().eval()
    assert torch.equal(model(some_tokens().int()), model(some_tokens()))
    assert torch.equal(model.loss(some_tokens().int()), model.loss(some_tokens()))


@pytest.mark.parametrize("pattern", [("lsh",), ("local", "lsh")])
def test_a_model_learns_a_batch_by_heart(pattern):
    model = build(torch.float32, attention=pattern, d_model=32, n_layers=2, d_ff=64)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(some_tokens())
        loss.backward()
        optimiser.step()
    assert loss < 0.1


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("embed.tokens.weight", "the embedding"),
        ("layers.0.f.attention.qk.weight", "layer 0.*local|layer 0.*lsh"),
        ("layers.1.f.attention.out.weight", "layer 1.*attention"),
        ("layers.1.g.piece.w_in.weight", "layer 1.*feed-forward"),
        ("layers.2.g.piece.w_out.bias", "layer 2.*feed-forward"),
    ],
)
def test_activations_that_are_not_finite_are_refused_with_their_layer(
    name, where, reversible, broken
):
    model = build(reversible=reversible)
    with torch.no_grad():
        weight = model.get_parameter(name)
        weight[..., 0 if weight.dim() == 1 else slice(None)] = broken
    for run in (model, model.loss):
        with pytest.raises(ValueError, match=f"finite.*{where}"):
            run(some_tokens())


def test_activations_whose_sum_is_too_large_for_their_dtype_are_finite_all_the_same():
    model = build(torch.float16)
    with torch.no_grad():
        model.embed.tokens.weight.fill_(1000)  # and the largest number is 65,504
    assert model(some_tokens()).isfinite().all()


@pytest.mark.parametrize("run", ["__call__", "loss", "trace"])
class TestBadBatches:
    @pytest.mark.parametrize(("token", "shown"), [(VOCAB, VOCAB), (-1, -1), (10**6, 10**6)])
    def test_token_ids_outside_the_vocabulary(self, run, token, shown):
        tokens = some_tokens()
        tokens[1, 3] = token
        with pytest.raises(ValueError, match=f"token ids must be 0 to .* = 10, got {shown}: "):
            getattr(build(), run)(tokens)

    def test_an_empty_sequence(self, run):
        with pytest.raises(ValueError, match="at least|1 to max_length"):
            getattr(build(), run)(torch.zeros(2, 0, dtype=torch.long))

    def test_an_empty_batch(self, run):
        with pytest.raises(ValueError, match=r"at least one row, got \(0, 5\)"):
            getattr(build(), run)(torch.zeros(0, 5, dtype=torch.long))

    def test_a_sequence_longer_than_the_longest(self, run):
        with pytest.raises(ValueError, match=r"max_length = 24 .*got \(2, 25\)"):
            getattr(build(), run)(some_tokens(length=25))

    def test_rows_of_padding_alone(self, run):
        padding = torch.tensor([[False], [True]]).expand(2, 17)
        with pytest.raises(ValueError, match=r"only padding in rows \[1\]"):
            getattr(build(), run)(some_tokens(), padding=padding)


@pytest.mark.parametrize("run", ["forward", "loss", "trace"])
@pytest.mark.parametrize("shape", [(17,), (1, 2, 17)])
def test_tokens_that_are_no_batch_of_sequences_are_refused(run, shape):
    tokens = torch.zeros(shape, dtype=torch.long)
    message = r"tokens must be integers of shape \(batch, length\)"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        getattr(build(), run)(tokens)


@pytest.mark.parametrize("run", ["forward", "loss", "trace"])
def test_tokens_that_are_no_integers_are_refused(run):
    with without_shape_checker(), pytest.raises(ValueError, match="tokens must be .*integer"):
        getattr(build(), run)(some_tokens().float())


@pytest.mark.parametrize("shape", [(2, 16), (1, 17), (17,), (2, 1)])
def test_weights_of_another_shape_are_refused(shape):
    message = r"weights must .*\(2, 17\), got"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        build().loss(some_tokens(), weights=torch.ones(shape))


def test_padding_of_another_shape_is_refused():
    message = r"padding must have the tokens' shape \(2, 17\), got \(2, 16\)"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        build()(some_tokens(), padding=torch.zeros(2, 16, dtype=torch.bool))


def test_an_attention_mask_that_is_not_compared_is_no_padding():
    message = "padding must be bool, True where a token is padding, got torch.int64: compare"
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        build()(some_tokens(), padding=torch.ones(2, 17, dtype=torch.long))


def test_a_loss_of_one_token_is_refused():
    with pytest.raises(ValueError, match="at least 2 tokens, got 1: nothing predicts the first"):
        build().loss(some_tokens(length=1))


def test_weights_that_leave_nothing_to_predict_are_refused():
    weights = torch.zeros(2, 17)
    weights[:, 0] = 1
    with pytest.raises(ValueError, match="weights must leave something to predict"):
        build().loss(some_tokens(), weights)


# ---------------------------------------------------------------- other devices


def test_a_trace_takes_tokens_and_padding_to_where_the_model_is(monkeypatch):
    model, taken = build().to("meta"), []

    monkeypatch.setattr(model, "_context", lambda *batch: taken.extend(batch))
    monkeypatch.setattr(model, "_layer_by_layer", lambda *_: iter([torch.zeros(2, 17, 1)]))
    monkeypatch.setattr(model, "_logits", lambda hidden: hidden)
    model.trace(some_tokens(), padded_at_the_end())
    model.trace(some_tokens())
    assert [None if it is None else it.device.type for it in taken] == ["meta"] * 3 + [None]


@pytest.mark.gpu
@pytest.mark.parametrize("pattern", PATTERNS)
def test_cuda_does_as_the_cpu_does(pattern):
    model = build(attention=pattern)
    loss = model.loss(some_tokens(), padding=padded_at_the_end())
    truth = [loss, *gradients_of(model, loss)]
    there = build(attention=pattern).cuda()
    loss = there.loss(some_tokens().cuda(), padding=padded_at_the_end().cuda())
    worst = Worst("cuda", 1e-9)
    for got, expected in zip([loss, *gradients_of(there, loss)], truth, strict=True):
        worst.check(got.cpu(), expected)
    for tokens in (some_tokens(), some_tokens().cuda()):
        trace = there.trace(tokens, padded_at_the_end())
        assert trace.logits.is_cuda
