"""A recorder sees what a model did at its steps and leaves no trace; pictures show its numbers."""

import copy
import dataclasses
import json
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate
from reformer_core.training import Progress, StepRecord, TrainingRun
from reformer_viz import measure_training, plot_training, plotly_training
from reformer_viz.measure.recording import FILE, NOBODY, Recorder, Recording, load_recording
from reformer_viz.measure.training import measure_organisation
from reformer_viz.style import bucket_colours
from tests import oracles

TASK = Duplicate(vocab_size=16, length=32)
PROBE = next(TASK.held_out(1)).tokens
CONFIG = ReformerConfig(
    vocab_size=16,
    d_model=32,
    n_layers=3,
    n_heads=2,
    attention=("lsh", "local", "lsh"),
    n_hashes=2,
    chunk_length=8,
    max_length=32,
    dropout=0.1,
    attention_dropout=0.1,
)
HOW = TrainConfig(
    steps=6,
    batch_size=4,
    learning_rate=3e-3,
    warmup_steps=0,
    evaluate_every=2,
    evaluation_batches=2,
)


def new_model(seed=0, **changes):
    torch.manual_seed(seed)
    return ReformerLM(dataclasses.replace(CONFIG, **changes))


def record_of(step):
    """What a run notes of a step."""
    return StepRecord(
        step=step, loss=1.0, learning_rate=0.1, gradient_norm=2.0, tokens=8, seconds=1.0
    )


def after(step):
    """What `train` tells after a step."""
    latest = record_of(step)
    return Progress(
        steps=9, latest=latest, tokens_per_second=1.0, seconds_left=1.0, evaluation=None
    )


def run_of(*steps):
    """A run that took these steps."""
    return TrainingRun(
        model=new_model(),
        config=HOW,
        history=tuple(map(record_of, steps)),
        evaluations=(),
        stopped="finished",
        seconds=1.0,
        device="cpu",
    )


@pytest.fixture(scope="module")
def trained():
    """A run, its recorder, and copies of the model at the recorded steps."""
    model, copies = new_model(), {}
    recorder = Recorder(model, PROBE, at=[0, 2, 3, 6])
    copies[0] = copy.deepcopy(model)

    def record(progress):
        recorder(progress)
        copies[progress.latest.step] = copy.deepcopy(model)

    return train(model, TASK, HOW, on_step=record), recorder, copies


@pytest.fixture(scope="module")
def training(trained):
    run, recorder, _ = trained
    return measure_training(run, recorder)


def made_up(sought, buckets, **rule):
    """A recording of given buckets and sought keys, for counting by hand."""
    buckets, sought = np.array(buckets, dtype=np.int16), np.array(sought, dtype=np.int16)
    snapshots, layers, heads, _, length = buckets.shape
    rule = {"n_buckets": 4, "chunk_length": 4, "causal": True, **rule}
    return Recording(
        steps=np.arange(snapshots),
        buckets=buckets,
        sought=sought,
        mass_found=np.ones((snapshots, layers, heads), np.float32),
        tokens=np.arange(length),
        labels=tuple("abcdefghijklmnopqrstuvwxyz"[i % 26] for i in range(length)),
        layers=tuple(range(layers)),
        rule=rule,
    )


# ---------------------------------------------------------------- leaving no trace


def states_of(run):
    """All that a run leaves in its model, and what it said about every step but the time."""
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    steps = [(r.step, r.loss, r.learning_rate, r.gradient_norm) for r in run.history]
    return weights, steps, [(e.step, e.loss, e.measure) for e in run.evaluations]


def test_a_watched_run_is_bit_for_bit_the_run_that_nobody_watched():
    alone = states_of(train(new_model(), TASK, HOW))
    model = new_model()
    recorder = Recorder(model, PROBE, at=range(7))
    watched = states_of(train(model, TASK, HOW, on_step=recorder))
    assert len(recorder.recording.steps) == 7
    assert watched[0].keys() == alone[0].keys()
    assert all(torch.equal(watched[0][name], alone[0][name]) for name in alone[0])
    assert watched[1:] == alone[1:]


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_neither_mode_nor_hash_step_nor_random_state(training):
    model = new_model().train(training)
    model.layers[1].f.dropout.train(not training)  # a mode of its own
    model.hash_step += 5
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random, grad = torch.get_rng_state(), torch.is_grad_enabled()
    recorder = Recorder(model, PROBE, at=[0, 1])
    recorder(after(1))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == grad
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_learned_nothing_keeps_its_buckets_although_its_hash_step_moved():
    model = new_model().train()
    recorder = Recorder(model, PROBE, at=[0, 1])
    for _ in range(3):
        model.loss(PROBE)  # draws other rotations every time, and dropout
    recorder(after(1))
    first, last = recorder.recording.buckets
    assert int(model.hash_step) == 3
    assert (first == last).all()


def test_a_recording_is_a_copy_that_later_steps_do_not_change():
    model = new_model()
    recorder = Recorder(model, PROBE, at=[0, 1])
    before = recorder.recording
    kept = before.buckets.copy()
    recorder(after(1))
    assert before.buckets.shape[0] == 1
    assert (before.buckets == kept).all()
    before.buckets[:] = 99
    assert recorder.recording.buckets.max() < 99


def test_another_thread_may_read_while_a_run_records():
    model, seen, done = new_model(), [], threading.Event()
    recorder = Recorder(model, PROBE, at=range(7))

    def read():
        while not done.wait(0.001):
            recording = recorder.recording
            seen.append(recording.buckets.shape[0] == len(recording.steps))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        train(model, TASK, HOW, on_step=recorder)
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(seen)


# ---------------------------------------------------------------- what is recorded


def test_a_snapshot_is_what_the_model_of_that_step_does_in_evaluation_mode(trained):
    _, recorder, copies = trained
    recording = recorder.recording
    assert recording.steps.tolist() == [0, 2, 3, 6]
    assert recording.layers == (0, 2)
    for snapshot, step in enumerate(recording.steps):
        trace = copies[int(step)].eval().trace(PROBE)
        for place, layer in enumerate(recording.layers):
            plan = trace.layers[layer].plan
            assert (recording.buckets[snapshot, place] == plan.buckets[0].numpy()).all()
            for head in range(CONFIG.n_heads):
                again = recording.plan(snapshot, place, head)
                assert (again.first[0, 0] == plan.first[0, head]).all()
                assert (again.order[0, 0] == plan.order[0, head]).all()
    assert (recording.tokens == PROBE[0].numpy()).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_mass_and_sought_keys_are_those_of_a_softmax_written_by_hand(causal, window):
    model = new_model(seed=1, causal=causal, window=window)
    with torch.no_grad():
        for layer in (0, 2):  # attention that has made up its mind, now and then
            model.layers[layer].f.attention.qk.weight *= 6
    recording = Recorder(model, PROBE, at=[0]).recording
    trace = model.eval().trace(PROBE)
    looked = 0
    for place, layer in enumerate(recording.layers):
        for head in range(CONFIG.n_heads):
            qk = trace.layers[layer].qk[0, head].double().numpy()
            rule = {name: value for name, value in recording.rule.items() if name != "n_buckets"}
            rounds = [
                oracles.seen_in_round(row.tolist(), **rule)
                for row in recording.buckets[0, place, head]
            ]
            everyone = oracles.everyone(len(qk), causal=causal)
            found, sought = [], []
            for query in range(len(qk)):
                weights = oracles.weights_of_query(query, qk, [everyone], False)
                held = set().union(*(seen[query] for seen in rounds))
                if weights:
                    found.append(sum(weights[key] for key in weights if key in held))
                best = max(weights, key=weights.get, default=None)
                sought.append(best if weights and weights[best] >= 0.5 else NOBODY)
            assert recording.mass_found[0, place, head] == pytest.approx(np.mean(found), abs=1e-5)
            assert recording.sought[0, place, head].tolist() == sought
            looked += sum(key != NOBODY for key in sought)
    assert 0 < looked < recording.sought.size


def test_labels_name_the_tokens_and_by_default_are_their_numbers():
    model = new_model()
    assert Recorder(model, PROBE[0], at=[0]).recording.labels == tuple(map(str, PROBE[0].tolist()))
    words = [f"word {i}" for i in range(32)]
    assert Recorder(model, PROBE, at=[0], labels=words).recording.labels == tuple(words)


def test_a_run_that_goes_on_from_a_checkpoint_forgets_the_model_that_was_there_before(tmp_path):
    model = new_model()
    how = dataclasses.replace(HOW, steps=2, folder=tmp_path)
    recorder = Recorder(model, PROBE, at=[0, 2, 4])
    train(model, TASK, how, on_step=recorder)
    longer = dataclasses.replace(how, steps=4, resume=True)
    train(model, TASK, longer, on_step=recorder)  # the same recorder goes on
    assert recorder.recording.steps.tolist() == [0, 2, 4]
    other = new_model(seed=9)
    late = Recorder(other, PROBE, at=[0, 5, 6])
    train(other, TASK, dataclasses.replace(longer, steps=6), on_step=late)
    assert late.recording.steps.tolist() == [5, 6]


# ---------------------------------------------------------------- saving


def test_a_recording_comes_back_from_its_folder_as_it_was(trained, tmp_path):
    recording = trained[1].recording
    path = recording.save(tmp_path / "run")
    again = load_recording(tmp_path / "run")
    for field in dataclasses.fields(Recording):
        before, now = getattr(recording, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert (before.dtype, before.tolist()) == (now.dtype, now.tolist()), field.name
        else:
            assert before == now, field.name
    assert recording.buckets.dtype == recording.sought.dtype == np.int16
    arrays = load_file(path)
    assert path.stat().st_size < sum(array.nbytes for array in arrays.values()) + 4096
    first = path.read_bytes()
    assert recording.save(tmp_path / "run").read_bytes() == first


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no snapshots in .*record a run"):
        load_recording(tmp_path)
    (tmp_path / FILE).write_bytes(b"half of someth")
    with pytest.raises(ValueError, match="must be whole, got a file that is cut off or damaged"):
        load_recording(tmp_path)
    for described in ({}, {"facts": json.dumps({"format": "another"})}):
        save_file({"a": np.zeros(3)}, tmp_path / FILE, metadata=described)
        with pytest.raises(ValueError, match='must say "reformer_viz snapshots 1" in its header'):
            load_recording(tmp_path)


# ---------------------------------------------------------------- measured


def test_curves_are_the_records_of_the_run(trained, training):
    run = trained[0]
    assert training.loss.tolist() == run.losses
    assert training.gradient_norm.tolist() == [record.gradient_norm for record in run.history]
    assert training.learning_rate.tolist() == [record.learning_rate for record in run.history]
    assert training.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert training.evaluation_steps.tolist() == [2, 4, 6]
    assert training.measure.tolist() == [found.measure for found in run.evaluations]
    assert training.evaluation_loss.tolist() == [found.loss for found in run.evaluations]
    assert (training.measure_name, training.stopped) == ("accuracy", "finished")


@pytest.mark.parametrize("causal", [True, False])
def test_organisation_is_counted_pair_by_pair(causal):
    dice = np.random.default_rng(3)
    buckets = dice.integers(4, size=(3, 3, 2, 2, 13))
    sought = np.full((3, 3, 2, 13), NOBODY)
    for query in range(1, 13, 2):
        sought[:, :2, :, query] = dice.integers(query, size=(3, 2, 2))
    sought[0] = 0  # of the first snapshot, which nobody asks
    recording = made_up(sought, buckets, causal=causal)
    found = measure_organisation(recording)
    assert found.n_sought.tolist() == [12, 12, 0]
    for snapshot, layer in np.ndindex(3, 3):
        together, seen = [], []
        for head, query in np.ndindex(2, 13):
            key = sought[-1, layer, head, query]
            if key == NOBODY:
                continue
            rounds = buckets[snapshot, layer, head]
            together += [row[query] == row[key] for row in rounds]
            sees = [
                oracles.seen_in_round(r.tolist(), chunk_length=4, causal=causal) for r in rounds
            ]
            seen.append(any(key in of[query] for of in sees))
            for round, row in enumerate(rounds):
                largest = max(sum(row == bucket) for bucket in range(4))
                share = found.largest_share[snapshot, layer, head, round]
                assert share == pytest.approx(largest / 13)
        if layer == 2:
            assert np.isnan(found.sought_seen[snapshot, 2])
            assert np.isnan(found.sought_together[snapshot, 2])
        else:
            assert found.sought_together[snapshot, layer] == pytest.approx(np.mean(together))
            assert found.sought_seen[snapshot, layer] == pytest.approx(np.mean(seen))


def test_shares_are_shares(training):
    organisation, recording = training.organisation, training.recording
    assert (organisation.largest_share >= 1 / recording.rule["n_buckets"]).all()
    assert (organisation.largest_share <= 1).all()
    assert (recording.mass_found >= 0).all()
    assert (recording.mass_found <= 1 + 1e-6).all()


def test_one_bucket_finds_everything_that_its_window_reaches():
    model = new_model(n_buckets=2, chunk_length=32)
    with torch.no_grad():
        for layer in (0, 2):  # all vectors equal, one bucket, one chunk
            model.layers[layer].f.norm.weight.zero_()
            model.layers[layer].f.norm.bias.fill_(1)
    training = measure_training(run_of(1), Recorder(model, PROBE, at=[0]))
    assert (training.organisation.largest_share == 1).all()
    assert np.allclose(training.recording.mass_found, 1)


def test_the_sentence_is_made_of_the_numbers(training):
    said = training.describe()
    organisation, recording = training.organisation, training.recording
    assert said.startswith(f"6 steps, finished: the loss went from {training.loss[0]:.3f} to")
    assert f"held-out accuracy is {training.measure[-1]:.1%}." in said
    assert "32 tokens of a probe were looked at 4 times between steps 0 and 6." in said
    for place, layer in enumerate((0, 2)):
        mass = recording.mass_found[:, place].mean(-1)
        largest = organisation.largest_share[-1, place].mean()
        assert f"Layer {layer}: its plans hold {mass[-1]:.0%} of full" in said
        assert f"({mass[0]:.0%} at first)" in said
        assert f"{largest:.0%} of the tokens (12% would be even)" in said
    curves_only = dataclasses.replace(training, recording=None, organisation=None)
    assert curves_only.describe() == said.split(" 32 tokens")[0]


def test_the_sentence_counts_the_sought_pairs_or_says_that_there_are_none(training):
    buckets = [[[[[0, 0, 1, 1]]]], [[[[0, 0, 0, 1]]]]]
    sought = [[[[NOBODY] * 4]], [[[NOBODY, 0, 0, NOBODY]]]]
    recording = made_up(sought, buckets)
    with_pairs = dataclasses.replace(
        training, recording=recording, organisation=measure_organisation(recording)
    )
    said = with_pairs.describe()
    assert "Of 2 pairs in which a query puts half of its weight on one key, 100% share a" in said
    assert "bucket in a round (50% at first) and 100% are seen by some round (50% at" in said
    recording = dataclasses.replace(recording, sought=np.full_like(recording.sought, NOBODY))
    without = dataclasses.replace(
        training, recording=recording, organisation=measure_organisation(recording)
    )
    assert "No query puts half of its weight on one key." in without.describe()


# ---------------------------------------------------------------- drawn


def test_the_picture_shows_the_numbers(training):
    figure = plot_training(training)
    recording, organisation = training.recording, training.organisation
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    drawn = {name: [line.get_ydata() for line in axes.lines] for name, axes in panels.items()}
    assert (drawn["Loss"][0] == training.loss).all()
    assert (drawn["Loss"][1] == training.evaluation_loss).all()
    assert (drawn["Held-out accuracy"][0] == training.measure).all()
    assert (drawn["Gradient norm, before clipping"][0] == training.gradient_norm).all()
    for place in range(2):
        mass = drawn["Full attention's weight found"][place]
        assert (mass == recording.mass_found[:, place].mean(-1)).all()
        largest = organisation.largest_share[:, place].mean((-1, -2))
        assert drawn["Largest bucket"][place] == pytest.approx(largest)
        seen, together = drawn["Pairs that the last snapshot seeks"][2 * place : 2 * place + 2]
        assert np.array_equal(seen, organisation.sought_seen[:, place], equal_nan=True)
        assert np.array_equal(together, organisation.sought_together[:, place], equal_nan=True)


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 1, 1)])
def test_the_strips_show_every_token_in_the_colour_of_its_bucket(training, place):
    layer, head, round = place
    figure = plot_training(training, *place)
    reading, sorted_ = (axes.images[0] for axes in figure.axes if axes.images)
    buckets = training.recording.buckets[:, layer, head, round]
    assert (reading.get_array() == buckets).all()
    order = oracles.sorted_positions(buckets[-1].tolist())
    assert (sorted_.get_array() == buckets[:, order]).all()
    n_buckets = training.recording.rule["n_buckets"]
    colours = [reading.cmap(reading.norm(bucket)) for bucket in range(n_buckets)]
    wanted = [int(c[1:3], 16) / 255 for c in bucket_colours(n_buckets)]
    assert [colour[0] for colour in colours] == pytest.approx(wanted)
    title = f"The probe's buckets: layer {(0, 2)[layer]}, head {head}, round {round}"
    assert title in [axes.get_title(loc="left") for axes in figure.axes]


def test_a_snapshot_a_token_and_what_it_seeks_are_framed(training):
    recording = training.recording
    layer, head, token = (int(at[0]) for at in np.nonzero(recording.sought[-1] != NOBODY))
    figure = plot_training(training, layer, head, 1, snapshot=1, token=token)
    strips = [axes for axes in figure.axes if axes.images]
    orders = np.arange(len(recording.tokens)), recording.last_order(layer, head, 1)
    for axes, order in zip(strips, orders, strict=True):
        row, own, sought = axes.patches
        assert (row.get_y(), row.get_height()) == (0.5, 1)
        assert order[int(own.get_x() + 0.5)] == token
        assert order[int(sought.get_x() + 0.5)] == recording.sought[-1, layer, head, token]
        assert (own.get_linestyle(), sought.get_linestyle()) == ("-", "--")
    curves = [axes for axes in figure.axes if not axes.images]
    assert {axes.lines[-1].get_xdata()[0] for axes in curves} == {recording.steps[1]}
    assert not [axes.patches[:] for axes in plot_training(training).axes if axes.patches]


def test_a_run_without_a_probe_is_drawn_by_its_curves_alone(trained):
    training = measure_training(trained[0])
    assert len(plot_training(training).axes) == 3
    assert len(plotly_training(training).data) == 4


@pytest.mark.parametrize(
    ("lengths", "ticks"),
    [
        ([0.33, 0.45], [0.2, 0.5]),
        ([1.0, 1.0], [1, 2]),
        ([0.03, 4.0], [0.01, 0.1, 1, 10]),
        ([0.5, np.nan, 0.0, 3.0], [0.5, 1, 2, 5]),
        ([np.nan, np.nan], [1, 2]),
    ],
)
def test_the_gradient_s_scale_has_ticks_below_and_above_every_length(training, lengths, ticks):
    lengths = np.resize(np.array(lengths), len(training.steps))
    training = dataclasses.replace(training, gradient_norm=lengths)
    axes = plot_training(training).axes[2]
    assert axes.get_yticks() == pytest.approx(ticks)
    assert axes.get_ylim() == pytest.approx((ticks[0], ticks[-1]))
    live = plotly_training(training).layout.yaxis3
    assert list(live.tickvals) == pytest.approx(ticks)
    assert 10 ** np.array(live.range) == pytest.approx([ticks[0], ticks[-1]])


def test_bits_per_byte_are_no_percentages(training):
    text = dataclasses.replace(training, measure_name="bits_per_byte")
    panel = plot_training(text).axes
    titles = {axes.get_title(loc="left"): axes.get_ylabel() for axes in panel}
    assert titles["Held-out bits per byte"] == "bits per byte"
    assert f"held-out bits per byte is {training.measure[-1]:.3g}." in text.describe()


def test_plotly_has_the_same_curves_with_their_names(training):
    figure = plotly_training(training)
    recording, organisation = training.recording, training.organisation
    drawn = {trace.name: np.array(trace.y, dtype=float) for trace in figure.data}
    assert (drawn["training"] == training.loss).all()
    assert (drawn["held-out accuracy"] == training.measure).all()
    assert (drawn["gradient norm"] == training.gradient_norm).all()
    for place, layer in enumerate((0, 2)):
        name = f"layer {layer}, seen by some round"
        assert np.array_equal(drawn[name], organisation.sought_seen[:, place], equal_nan=True)
        masses = [np.array(t.y) for t in figure.data if t.name == f"layer {layer}"]
        assert masses[0] == pytest.approx(recording.mass_found[:, place].mean(-1))
    listed = {trace.name: trace.line for trace in figure.data if trace.showlegend is not False}
    assert list(listed) == [
        "training",
        "held out",
        "layer 0",
        "layer 2",
        "pairs seen by some round",
        "pairs in one bucket, by round",
    ]
    assert figure.layout.showlegend is not False
    assert [line.dash for line in listed.values()] == [None] * 4 + ["solid", "dot"]
    of_layer = [trace.name for trace in figure.data if trace.legendgroup == "layer 2"]
    assert len(of_layer) == 4
    units = [axis.title.text for axis in figure.select_yaxes()]
    assert len(units) == 6
    assert all(units)
    assert json.loads(figure.to_json())


# ---------------------------------------------------------------- bad input


def test_a_model_without_lsh_layers_is_refused():
    with pytest.raises(ValueError, match="must have an LSH layer, got attention local, local, loc"):
        Recorder(new_model(attention=("local",)), PROBE, at=[0])


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_a_probe_of_less_than_two_tokens_is_refused(n_tokens):
    with pytest.raises(ValueError, match=f"a probe needs at least 2 tokens, got {n_tokens}"):
        Recorder(new_model(), PROBE[:, :n_tokens], at=[0])


@pytest.mark.parametrize("at", [[], [-1, 3]])
def test_steps_that_no_run_reaches_are_refused(at):
    with pytest.raises(ValueError, match="at must be one or more steps from 0 on, got"):
        Recorder(new_model(), PROBE, at=at)


def test_labels_must_name_every_token():
    with pytest.raises(ValueError, match="labels must name every token, got 1 for 32 tokens"):
        Recorder(new_model(), PROBE, at=[0], labels=["a"])


def test_activations_that_are_not_finite_are_refused():
    model = new_model()
    with torch.no_grad():
        model.layers[2].f.attention.qk.weight[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="must be finite, got NaN or infinity in layer 2 at step 0"
    ):
        Recorder(model, PROBE, at=[0])


def test_a_recorder_follows_one_run_and_says_so():
    recorder = Recorder(new_model(), PROBE, at=[3])
    with pytest.raises(ValueError, match="nothing was recorded yet.*on_step=recorder"):
        _ = recorder.recording
    recorder(after(1))
    with pytest.raises(ValueError, match="must follow one run, got step 1 after step 1"):
        recorder(after(1))


def test_a_recording_of_another_run_is_refused(trained):
    recording = dataclasses.replace(trained[1].recording, steps=np.array([0, 2, 3, 7]))
    with pytest.raises(ValueError, match="must be of the run, got one of step 7 for a run of 6"):
        measure_training(trained[0], recording)


def test_a_run_without_a_step_is_refused():
    with pytest.raises(ValueError, match="a run must have taken a step to be measured, got none"):
        measure_training(run_of())


@pytest.mark.parametrize("place", [{"layer": 2}, {"head": -1}, {"round": 2}])
def test_a_place_that_was_not_recorded_is_refused(training, place):
    [(name, value)] = place.items()
    with pytest.raises(
        ValueError, match=rf"{name} must be in 0\.\.1, got {value}: 2 were recorded"
    ):
        plot_training(training, **place)
