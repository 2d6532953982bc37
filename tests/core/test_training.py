"""Training: what a run repeats, reports and refuses, and how it can be stopped and looked at."""

import dataclasses
import math
import os
import signal
import threading

import pytest
import torch

from reformer_core.bucketing import plan_chunks
from reformer_core.checkpoints import load_checkpoint, read_checkpoint
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.hashing import draw_rotations, hash_vectors
from reformer_core.models import ReformerLM
from reformer_core.tasks import Batch, Duplicate, TextBytes
from reformer_core.tasks.text import Text
from reformer_core.training import Progress, TrainingRun, evaluate, learning_rate, train
from reformer_core.training.optimizers import make_optimizer

TASK = Duplicate(vocab_size=7, length=8)


def tiny(**changes):
    """Describe a Reformer that trains in milliseconds, with dropout on."""
    sizes = {"vocab_size": 7, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 16}
    rest = {"n_hashes": 2, "chunk_length": 4, "max_length": 8}
    random = {"dropout": 0.2, "attention_dropout": 0.2}
    return ReformerConfig(**(sizes | rest | random | changes))


def new_model(kind=ReformerLM, **changes):
    torch.manual_seed(0)
    return kind(tiny(**changes))


def how(**changes):
    return TrainConfig(
        **({"steps": 4, "seed": 3, "batch_size": 2, "evaluation_batches": 1} | changes)
    )


# ------------------------------------------------------------------------------- what it repeats


def test_a_run_repeats_bit_for_bit_and_another_seed_gives_another():
    first, second = (train(new_model(), TASK, how()) for _ in range(2))
    assert first.losses == second.losses
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert train(new_model(), TASK, how(seed=4)).losses != first.losses


def test_the_data_are_a_function_of_seed_step_and_micro_batch():
    seen = []

    class Watched(Duplicate):
        def batch(self, batch_size, generator):
            batch = super().batch(batch_size, generator)
            if batch_size == 2:  # held-out batches come from larger ones
                seen.append(batch.tokens)
            return batch

    train(new_model(), Watched(7, 8), how(steps=3, accumulate=2))
    once = torch.stack(seen)
    assert len(once.flatten(1).unique(dim=0)) == 6
    train(new_model(dropout=0.0), Watched(7, 8), how(steps=3, accumulate=2, learning_rate=1.0))
    assert torch.equal(torch.stack(seen[6:]), once)


def test_the_callers_random_state_and_mode_are_left_as_they_were():
    model = new_model().eval()
    before = torch.get_rng_state()
    train(model, TASK, how())
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_what_others_draw_between_steps_changes_nothing():
    alone = train(new_model(), TASK, how())

    def disturb(_):
        torch.manual_seed(123)
        torch.rand(1000)

    assert train(new_model(), TASK, how(), on_step=disturb).losses == alone.losses


def test_a_view_that_changes_the_mode_does_not_change_the_training():
    alone, model = train(new_model(), TASK, how()), new_model()
    looked_at = train(model, TASK, how(), on_step=lambda _: model.eval())
    assert looked_at.losses == alone.losses


def test_a_second_thread_that_hashes_and_plans_meanwhile_changes_nothing():
    alone = train(new_model(), TASK, how(steps=12))
    stop, looked = threading.Event(), []

    def explore():
        generator = torch.Generator().manual_seed(1)
        while not stop.is_set():
            vectors = torch.randn(1, 2, 64, 8, generator=generator)
            rotations = draw_rotations(2, 2, 8, 8, generator)
            plan = plan_chunks(hash_vectors(vectors, rotations), chunk_length=8, causal=True)
            looked.append(plan.times_seen().sum())

    thread = threading.Thread(target=explore)
    thread.start()
    try:
        watched = train(new_model(), TASK, how(steps=12))
    finally:
        stop.set()
        thread.join()
    assert len(looked) > 1
    assert watched.losses == alone.losses


def test_evaluating_more_often_changes_no_loss():
    seldom = train(new_model(), TASK, how())
    often = train(new_model(), TASK, how(evaluate_every=1))
    assert often.losses == seldom.losses
    assert [found.step for found in seldom.evaluations] == [4]
    assert [found.step for found in often.evaluations] == [1, 2, 3, 4]
    assert often.evaluations[-1] == seldom.evaluations[-1]


def test_training_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert train(new_model(), TASK, how()).losses == train(new_model(), TASK, how()).losses


class Drawing(ReformerLM):
    """Notes what dropout would draw."""

    def loss(self, tokens, weights=None, padding=None):
        self.drawn = [*getattr(self, "drawn", []), torch.rand(1).item()]
        return super().loss(tokens, weights, padding)


def test_dropout_draws_anew_in_every_micro_batch_and_the_seed_says_what():
    first, second, other = (new_model(Drawing) for _ in range(3))
    train(first, TASK, how(accumulate=2))
    train(second, TASK, how(accumulate=2))
    train(other, TASK, how(accumulate=2, seed=4))
    assert len(set(first.drawn)) == 8
    assert first.drawn == second.drawn
    assert set(first.drawn).isdisjoint(other.drawn)


# ---------------------------------------------------------------------------------- what it does


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.01), ("adafactor", 0.05)])
def test_training_teaches_the_task(optimizer, rate):
    model = new_model(d_model=32, dropout=0.0, attention_dropout=0.0, n_hashes=4)
    config = how(steps=75, batch_size=16, optimizer=optimizer, learning_rate=rate)
    run = train(model, TASK, dataclasses.replace(config, evaluation_batches=None))
    assert run.evaluations[-1].measure > 0.9
    assert run.evaluations[-1].measure_name == "accuracy"
    assert run.losses[-1] < 0.3 * run.losses[0]


class SameAgain:
    """A task of one batch, for comparing gradients."""

    name, measure_name, vocab_size, length = "same", "accuracy", 7, 8

    def batch(self, batch_size, generator):
        return TASK.batch(batch_size, torch.Generator().manual_seed(0))

    def held_out(self, batch_size):
        yield self.batch(batch_size, None)

    def measure(self, logits, batch):
        return TASK.measure(logits, batch)

    def measure_of_loss(self, loss):
        return None

    def facts(self):
        return {"name": self.name}


def plain(**changes):
    """Make a model whose loss does not depend on chance or on the step."""
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "attention": ("full",)}
    return new_model(**(quiet | changes))


def test_accumulated_gradients_are_the_mean_over_the_micro_batches():
    once = train(plain(), SameAgain(), how(steps=1)).history[0]
    thrice = train(plain(), SameAgain(), how(steps=1, accumulate=3)).history[0]
    assert thrice.gradient_norm == pytest.approx(once.gradient_norm, rel=1e-5)
    assert thrice.loss == pytest.approx(once.loss, rel=1e-6)
    assert (once.tokens, thrice.tokens) == (16, 48)


def test_a_long_gradient_is_cut_and_its_length_before_is_recorded():
    model, found = plain(), []

    def look(_):
        found.append(torch.cat([w.grad.flatten() for w in model.parameters()]).norm().item())

    cut = train(model, SameAgain(), how(steps=1, clip_norm=0.01), on_step=look)
    model = plain()
    whole = train(model, SameAgain(), how(steps=1, clip_norm=None), on_step=look)
    assert found[0] == pytest.approx(0.01, rel=1e-3)
    assert found[1] == pytest.approx(whole.history[0].gradient_norm, rel=1e-5)
    assert cut.history[0].gradient_norm == whole.history[0].gradient_norm > 0.1


def test_the_recorded_loss_is_the_models_loss_on_that_batch():
    model = plain().train()
    batch = SameAgain().batch(2, None)
    expected = model.loss(batch.tokens, batch.weights).item()
    assert train(model, SameAgain(), how(steps=1)).losses == [expected]


def test_only_matrices_that_are_no_embeddings_decay():
    model = new_model()
    names = {weight: name for name, weight in model.named_parameters()}
    decaying, others = make_optimizer(model, how(weight_decay=0.1)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert {names[w] for w in decaying["params"]} | {names[w] for w in others["params"]} == set(
        names.values()
    )
    assert all(w.ndim == 2 and "embed." not in names[w] for w in decaying["params"])
    assert all(w.ndim == 1 or "embed." in names[w] for w in others["params"])


def test_frozen_weights_stay_and_a_frozen_model_is_refused():
    model = new_model()
    model.embed.requires_grad_(False)
    before = model.embed.tokens.weight.clone()
    train(model, TASK, how())
    assert torch.equal(model.embed.tokens.weight, before)
    with pytest.raises(ValueError, match="got a frozen model"):
        train(model.requires_grad_(False), TASK, how())


def rates(**changes):
    config = how(steps=12, learning_rate=0.5, **changes)
    return [learning_rate(config, step) for step in range(12)]


def test_the_learning_rate_warms_up_and_stays():
    assert rates(warmup_steps=4) == [0.125, 0.25, 0.375] + [0.5] * 9
    assert rates(warmup_steps=0) == [0.5] * 12


def test_a_cosine_falls_from_its_height_to_nearly_nothing():
    found = rates(warmup_steps=2, schedule="cosine")
    assert found[:3] == [0.25, 0.5, 0.5]
    assert found[7] == pytest.approx(0.25)  # half of the ten steps after the warm-up
    assert sorted(found[2:], reverse=True) == found[2:]
    assert 0 < found[-1] < 0.02


def test_an_inverse_square_root_halves_when_the_step_quadruples():
    found = rates(warmup_steps=3, schedule="inverse_sqrt")
    assert found[2] == 0.5
    assert found[11] == pytest.approx(0.25)


def test_the_learning_rate_of_the_step_is_the_one_that_is_used():
    config = how(steps=3, warmup_steps=3, learning_rate=0.3, weight_decay=0.0)
    moved, model = [], plain()

    def look(progress):
        moved.append((progress.latest.learning_rate, model.head.bias.detach().clone()))

    before = model.head.bias.detach().clone()
    train(model, SameAgain(), config, on_step=look)
    assert [rate for rate, _ in moved] == [learning_rate(config, step) for step in range(3)]
    # Adam's first step moves every weight that has a gradient by the learning rate.
    assert (moved[0][1] - before).abs().max().item() == pytest.approx(0.1, rel=1e-3)


class Watching(ReformerLM):
    """Notes under which precision the loss is computed."""

    def loss(self, tokens, weights=None, padding=None):
        self.autocasts = torch.is_autocast_enabled("cpu")
        return super().loss(tokens, weights, padding)


@pytest.mark.parametrize(("asked", "used"), [(None, False), (False, False), (True, True)])
def test_autocast_is_off_on_a_cpu_unless_it_is_asked_for(asked, used):
    model = new_model(Watching)
    run = train(model, TASK, how(autocast=asked, device="cpu"))
    assert model.autocasts is used
    assert all(math.isfinite(loss) for loss in run.losses)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


# ------------------------------------------------------------------------------------ evaluation


def test_an_evaluation_is_the_mean_over_all_that_is_held_out():
    task = TextBytes(8, Text(bytes(range(40)), bytes(range(33))))
    model = new_model(vocab_size=256)
    found = evaluate(model, task, batch_size=2)
    tokens = torch.arange(33)
    surprise = []
    for start in (0, 7, 14, 21, 25):
        logits = model.eval()(tokens[None, start : start + 8])[0].log_softmax(-1)
        surprise += [-logits[i, start + i + 1].item() for i in range(7)][
            (3 if start == 25 else 0) :
        ]
    assert len(surprise) == 32
    assert found.loss == pytest.approx(sum(surprise) / 32, rel=1e-5)
    assert found.measure == pytest.approx(found.loss / math.log(2), rel=1e-6)
    assert (found.measure_name, found.step) == ("bits_per_byte", None)


def test_an_evaluation_does_not_depend_on_mode_or_chance_and_leaves_both():
    model = new_model().train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = evaluate(model, TASK, n_batches=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    torch.manual_seed(2)
    assert evaluate(model.eval(), TASK, n_batches=2) == first
    assert not model.training


@pytest.mark.parametrize("nothing", [{"batch_size": 0}, {"n_batches": 0}])
def test_an_evaluation_of_nothing_is_refused(nothing):
    with pytest.raises(ValueError, match="must be at least 1, got 0: nothing would be measured"):
        evaluate(new_model(), TASK, **nothing)


# -------------------------------------------------------------------------------- what it reports


def test_every_step_is_reported_as_it_happens_and_kept():
    reports = []
    run = train(new_model(), TASK, how(evaluate_every=2), on_step=reports.append)
    assert [report.latest for report in reports] == list(run.history)
    assert [record.step for record in run.history] == [1, 2, 3, 4]
    assert [report.steps for report in reports] == [4] * 4
    told = [report.evaluation and report.evaluation.step for report in reports]
    assert told == [None, 2, 2, 4]
    assert reports[-1].evaluation == run.evaluations[-1]
    last = reports[-1]
    recent = run.history
    assert last.tokens_per_second == pytest.approx(64 / sum(r.seconds for r in recent))
    assert last.seconds_left == 0 < reports[0].seconds_left
    assert isinstance(last, Progress)
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.steps = 9


def test_a_run_prints_in_a_few_words_and_is_timed():
    run = train(new_model(), TASK, how())
    assert isinstance(run, TrainingRun)
    assert len(repr(run)) < 1500
    assert "stopped='finished'" in repr(run)
    assert run.seconds >= sum(record.seconds for record in run.history) > 0
    assert run.device == str(next(run.model.parameters()).device)


# ------------------------------------------------------------------------------ what it refuses


class Exploding(ReformerLM):
    """Returns a loss that is not a number from its third step on."""

    def loss(self, tokens, weights=None, padding=None):
        return super().loss(tokens, weights, padding) * (math.nan if self.hash_step > 2 else 1)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path):
    model, kept = new_model(Exploding), {}

    def keep(_):
        kept.update({name: weight.clone() for name, weight in model.named_parameters()})

    config = how(folder=tmp_path, checkpoint_every=1)
    with pytest.raises(
        ValueError, match=r"in step 3: loss must be finite, got nan; lower learning"
    ):
        train(model, TASK, config, on_step=keep)
    assert all(torch.equal(weight, kept[name]) for name, weight in model.named_parameters())
    survivor = read_checkpoint(tmp_path)
    assert survivor.tensors["history/step"].tolist() == [1, 2]
    assert torch.equal(load_checkpoint(tmp_path).head.weight, kept["head.weight"])


def test_activations_that_are_not_finite_are_told_with_their_step():
    model = new_model()

    def break_it(progress):
        if progress.latest.step == 2:
            model.layers[0].f.norm.weight.data.fill_(math.inf)

    with pytest.raises(ValueError, match=r"in step 3: activations .*; lower learning_rate \(0.001"):
        train(model, TASK, how(), on_step=break_it)


def test_weights_that_are_not_finite_never_reach_the_checkpoint(tmp_path):
    model = new_model()

    def break_it(progress):
        if progress.latest.step == 3:
            model.head.bias.data.fill_(math.nan)

    config = how(steps=3, folder=tmp_path, checkpoint_every=2)
    with pytest.raises(ValueError, match=r"in step 3: weights must be finite"):
        train(model, TASK, config, on_step=break_it)
    assert read_checkpoint(tmp_path).tensors["history/step"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"vocab_size": 6},
            "vocab_size must be at least the task's, 7, got 6: make the model with",
        ),
        (
            {"max_length": 7},
            "max_length must be at least the task's, 8, got 7: make the model with",
        ),
    ],
)
def test_a_task_that_the_model_cannot_hold_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        train(new_model(**changes), TASK, how())


@pytest.mark.parametrize("device", ["cuda:99", "no such thing"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=f"that this machine has, got '{device}'"):
        train(new_model(), TASK, how(device=device))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive and finite, got nan"),
        ({"clip_norm": math.inf}, "clip_norm must be positive and finite, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"resume": True}, "resume=True needs the folder of a checkpoint"),
    ],
)
def test_a_training_that_cannot_work_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        how(**changes)


# ----------------------------------------------------------------------------------- interruptions


def interrupt_at(step, times=1):
    """Send a real SIGINT from another thread, right after a step, and wait until it is sent."""

    def on_step(progress):
        if progress.latest.step == step:
            for _ in range(times):
                timer = threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                timer.join()

    return on_step


def test_ctrl_c_keeps_the_run_so_far_and_it_can_be_gone_on_with(tmp_path):
    straight = train(new_model(), TASK, how(steps=6))
    config = how(steps=6, folder=tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    run = train(new_model(), TASK, config, on_step=interrupt_at(3))
    assert run.stopped == "interrupted"
    assert run.losses == straight.losses[:3]
    assert signal.getsignal(signal.SIGINT) is handler
    rest = train(new_model(), TASK, dataclasses.replace(config, resume=True))
    assert rest.stopped == "finished"
    assert rest.losses == straight.losses
    assert rest.evaluations == straight.evaluations


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    config = how(folder=tmp_path, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(new_model(), TASK, config, on_step=interrupt_at(2, times=2))
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_checkpoint(tmp_path).tensors["history/step"].tolist() == [1]


def test_an_evaluation_that_is_interrupted_is_dropped_and_made_up_for_later(tmp_path):
    class Interrupting(Duplicate):
        armed = True

        def held_out(self, batch_size):
            for number, batch in enumerate(super().held_out(batch_size)):
                if number == 3 and Interrupting.armed:
                    Interrupting.armed = False
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    config = how(folder=tmp_path, evaluate_every=2, evaluation_batches=8)
    run = train(new_model(), Interrupting(7, 8), config)
    assert (run.stopped, len(run.history), run.evaluations) == ("interrupted", 2, ())
    rest = train(new_model(), TASK, dataclasses.replace(config, resume=True))
    assert (
        rest.evaluations
        == train(new_model(), TASK, how(evaluate_every=2, evaluation_batches=8)).evaluations
    )


def test_training_works_in_a_thread_that_no_signal_reaches():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train(new_model(), TASK, how())))
    thread.start()
    thread.join()
    assert runs[0].losses == train(new_model(), TASK, how()).losses


# ------------------------------------------------------------------------------------ any device


@pytest.mark.gpu
def test_training_goes_to_the_gpu_and_goes_on_there(tmp_path):
    straight = train(new_model(), TASK, how(steps=6))
    assert straight.device.startswith("cuda")
    run = train(new_model(), TASK, how(folder=tmp_path))
    assert "random/cuda" in read_checkpoint(tmp_path).tensors
    rest = train(new_model(), TASK, how(steps=6, folder=tmp_path, resume=True))
    assert rest.losses[:4] == run.losses
    assert rest.losses == pytest.approx(straight.losses, rel=1e-2)


def test_batches_go_to_a_device_whole():
    batch = Batch(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2)).to("meta")
    assert batch.tokens.device.type == batch.weights.device.type == "meta"
