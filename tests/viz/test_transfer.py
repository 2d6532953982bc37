"""Table 2: every cell against a model that is built by hand, and the picture by its cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from reformer_core import ReformerConfig, ReformerLM
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import measure_transfer, plot_transfer, transfer_of_paper
from reformer_viz.measure.rounds import hashing_layers, with_attention

TASK = Duplicate(vocab_size=5, length=16)
CONFIG = ReformerConfig(
    vocab_size=5, d_model=16, n_heads=2, n_hashes=2, n_buckets=4, chunk_length=4, max_length=16
)


def model_of(seed=1, **changes):
    torch.manual_seed(seed)
    return ReformerLM(replace(CONFIG, **changes))


@pytest.fixture(scope="module")
def models():
    return {"LSH-2": model_of(n_layers=1), "full": model_of(2, n_layers=1, attention=("full",))}


@pytest.fixture(scope="module")
def transfer(models):
    return measure_transfer(models, TASK, n_hashes=(None, 3, 2, 1), n_batches=2)


def accuracy_of(model):
    """Count right answers one by one."""
    right = []
    for tokens in torch.cat([batch.tokens for batch in TASK.held_out(16)])[:32]:
        guesses = model.eval()(tokens[None])[0].argmax(-1)
        right += [guesses[t] == tokens[t + 1] for t in range(8, 15)]
    return sum(map(float, right)) / len(right)


def test_every_cell_is_the_model_with_that_attention_and_its_own_weights(models, transfer):
    for row, model in enumerate(models.values()):
        for column, n in enumerate((None, 3, 2, 1)):
            pattern = ("full",) if n is None else ("lsh",)
            by_hand = ReformerLM(replace(model.config, attention=pattern, n_hashes=n or 1))
            by_hand.load_state_dict(model.state_dict())
            used = with_attention(model, n)
            if n is not None:
                (own,), (hashing,) = hashing_layers(used), hashing_layers(by_hand)
                hashing.evaluation_rotations = own.evaluation_rotations
                assert own.evaluation_rotations.shape[1] == n
            assert transfer.accuracy[row, column] == pytest.approx(accuracy_of(by_hand), abs=1e-6)
    assert transfer.trained == ("LSH-2", "full")
    assert transfer.used == ("full", "LSH-3", "LSH-2", "LSH-1")
    assert transfer.n_sequences == 32


def test_a_model_used_as_it_was_trained_is_itself(models, transfer):
    assert transfer.accuracy[0, 2] == pytest.approx(accuracy_of(models["LSH-2"]), abs=1e-6)
    assert transfer.accuracy[1, 0] == pytest.approx(accuracy_of(models["full"]), abs=1e-6)


def test_the_first_rounds_are_the_models_own():
    model = model_of(n_layers=2)
    for own, fewer, more in zip(
        *(hashing_layers(it) for it in (model, with_attention(model, 1), with_attention(model, 5))),
        strict=True,
    ):
        rotations = own.evaluation_rotations
        assert torch.equal(fewer.evaluation_rotations, rotations[:, :1])
        assert torch.equal(more.evaluation_rotations[:, :2], rotations)
        assert len({float(r) for r in more.evaluation_rotations[0, :, 0, 0]}) == 5


@pytest.mark.parametrize(
    ("pattern", "n_hashes", "becomes"),
    [
        (("local", "lsh"), None, ("local", "full")),
        (("local", "lsh"), 2, ("local", "lsh")),
        (("local", "full"), 2, ("local", "lsh")),
        (("full", "lsh"), 2, ("full", "lsh")),
        (("full", "lsh"), None, ("full", "full")),
    ],
)
def test_full_layers_hash_only_where_no_layer_does(pattern, n_hashes, becomes):
    assert with_attention(model_of(attention=pattern), n_hashes).config.attention == becomes


def test_measuring_reads_the_models_and_nothing_else(models):
    model = models["LSH-2"].train()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    measure_transfer(models, TASK, n_batches=1)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert model.training
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


def test_the_sentence_says_the_whole_matrix(transfer):
    said = transfer.describe()
    assert said.startswith("32 sequences of length 16, 5 symbols; right when used with full, LSH-3")
    row = ", ".join(f"{share:.1%}" for share in transfer.accuracy[0])
    assert f"trained with LSH-2: {row};" in said
    assert said.endswith("Guessing: 25.0%.")


def test_the_papers_table_is_table_2():
    paper = transfer_of_paper()
    assert paper.describe().startswith("length 1,024, 128 symbols;")
    assert "trained with LSH-2: 0.8%, 100.0%, 99.9%, 98.1%, 86.8%;" in paper.describe()
    assert paper.accuracy.shape == (len(paper.trained), len(paper.used)) == (4, 5)
    assert round(paper.chance, 3) == paper.accuracy[1, 0]  # the paper's LSH models guess in full


def cells(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_the_picture_has_a_cell_for_every_number_and_frames_those_used_as_trained(transfer):
    paper = transfer_of_paper()
    figure = plot_transfer(transfer, paper, titles=("ours", "the paper's"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ours", "the paper's"]
    for axes, shown in zip(figure.axes, (transfer, paper), strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert texts == [f"{100 * share:.1f}" for share in shown.accuracy.ravel()]
        own = np.equal.outer(np.array(shown.trained), np.array(shown.used))
        framed = [cell.get_linewidth() > 0 for cell in cells(axes)]
        assert framed == own.ravel().tolist()
        assert [tick.get_text() for tick in axes.get_xticklabels()] == list(shown.used)
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(shown.trained)
    colours = {to_hex(cell.get_facecolor()) for cell in cells(figure.axes[1])}
    assert len(colours) > 5


def test_equal_accuracies_have_equal_colours():
    paper = transfer_of_paper()
    (axes,) = plot_transfer(paper).axes
    of_share = {}
    for cell, share in zip(cells(axes), paper.accuracy.ravel(), strict=True):
        of_share.setdefault(share, set()).add(to_hex(cell.get_facecolor()))
    assert all(len(found) == 1 for found in of_share.values())
    assert axes.get_title(loc="left") == "length 1,024, 128 symbols"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": TextBytes(16)}, "task must be Duplicate.*got TextBytes: for a text use"),
        ({"models": {}}, "at least one model"),
        ({"n_hashes": ()}, "at least one model and one n_hashes"),
        ({"n_hashes": (4, 0)}, "at least 1, or None for all pairs, got \\[4, 0\\]"),
        ({"n_batches": 0}, "n_batches must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(models, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        measure_transfer(**{"models": models, "task": TASK, **arguments})


@pytest.mark.parametrize("asked", [((), ()), (("one",), ("a", "b"))])
def test_a_picture_needs_a_matrix_and_as_many_titles(asked):
    matrices, titles = asked
    with pytest.raises(ValueError, match="a title for each or none"):
        plot_transfer(*[transfer_of_paper() for _ in matrices], titles=titles)
