"""The exercises' framework, and every exercise of every lesson against its own mistakes."""

import importlib
import pkgutil

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from reformer_viz.lessons import WORDS, Exercise, Mistake, checks, sixteen_tokens
from reformer_viz.lessons.exercise import NOT_WRITTEN

EXERCISES = [
    (f"{module.name}.{name}", exercise)
    for module in pkgutil.iter_modules(checks.__path__)
    for name, exercise in vars(importlib.import_module(f"{checks.__name__}.{module.name}")).items()
    if isinstance(exercise, Exercise)
]
every = pytest.mark.parametrize(
    "exercise", [it for _, it in EXERCISES], ids=[name for name, _ in EXERCISES]
)

SQUARES = Exercise(
    right=lambda x: x * x,
    cases=lambda: [(torch.tensor([1, 2]),), (torch.tensor([[3, 0]]),)],
    mistakes=[
        Mistake(lambda x: x + x, "that is the double"),
        Mistake(lambda x: x.sum(), "that is one number"),
    ],
    insight="squares grow",
)


# ------------------------------------------------------------------------ every exercise


@every
def test_the_right_answer_passes(exercise):
    assert exercise(exercise.right).passed, exercise(exercise.right).words


@every
def test_every_usual_mistake_gets_its_own_hint(exercise):
    assert len(exercise.mistakes) >= 3
    hints = [mistake.hint for mistake in exercise.mistakes]
    assert len(set(hints)) == len(hints)
    for mistake in exercise.mistakes:
        verdict = exercise(mistake.answer)
        assert (verdict.passed, verdict.words) == (False, mistake.hint)


@every
def test_the_cases_are_the_same_each_time(exercise):
    again = [exercise(exercise.right).words for _ in range(2)]
    assert again[0] == again[1]
    first, second = (repr([*exercise.cases()]) for _ in range(2))
    assert first == second


# ------------------------------------------------------------------------- the framework


def test_a_right_answer_is_told_what_it_shows():
    assert repr(SQUARES(lambda x: x**2)) == "right: squares grow"


def test_a_known_mistake_is_named():
    assert repr(SQUARES(lambda x: 2 * x)) == "not yet: that is the double"


@pytest.mark.parametrize("answer", [None, ...])
def test_nothing_is_not_a_wrong_answer(answer):
    assert SQUARES(answer).words == NOT_WRITTEN


def test_a_stub_is_not_a_wrong_answer():
    def squares(x):
        raise NotImplementedError

    verdict = SQUARES(squares)
    assert (verdict.passed, verdict.words) == (False, NOT_WRITTEN)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x[:1], "the shape must be (2,), got (1,)"),
        (lambda x: x > 0, "the values must be numbers, got True or False"),
        (
            lambda x: x * x + (x == 2),
            "1 of 2 numbers differ; the first, at [1], should be 4",
        ),
        (lambda x: None, "returns nothing: end it with `return`"),
        (lambda x: "four", "tensor([1, 4]) is right, got 'four'"),
        (lambda x: x.cube(), "it stopped with AttributeError: 'Tensor' object has no attribute"),
        (7, "a function is asked for, got 7"),
    ],
)
def test_an_unknown_mistake_is_described(answer, words):
    verdict = SQUARES(answer)
    assert not verdict.passed
    assert words in verdict.words


def test_a_mistake_is_named_even_if_the_answer_stops_later():
    def stops(x):
        return x + x if x.dim() == 1 else x.cube()

    assert SQUARES(stops).words == "that is the double"


def test_an_answer_that_stops_before_it_is_wrong_gets_the_error():
    def stops(x):
        return x * x if x.dim() == 1 else x.cube()

    assert "it stopped with AttributeError" in SQUARES(stops).words


def test_a_value_can_be_asked_for():
    asked = Exercise(right=0.5, mistakes=[Mistake(2, "the other way round")], tolerance=1e-2)
    assert asked(0.501).passed
    assert asked(2.0).words == "the other way round"
    assert asked(0.7).words == "0.5 is right, got 0.7"
    assert asked(np.float32(0.5)).passed


def test_several_results_are_compared_one_by_one():
    asked = Exercise(right=lambda: (torch.ones(2), True), mistakes=[])
    assert asked(lambda: (torch.ones(2), True)).passed
    assert asked(lambda: (torch.ones(2), False)).words == "result 2 of 2: True is right, got False"
    assert "2 results are asked for" in asked(lambda: (torch.ones(2),)).words


def test_an_answer_may_spoil_its_arguments_and_the_random_state():
    def spoils(x):
        torch.manual_seed(7)
        square = x * x
        x.zero_()
        return square

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    cases = [(torch.tensor([1, 2]),)] * 2
    asked = Exercise(right=lambda x: x * x, cases=lambda: cases, mistakes=[])
    assert asked(spoils).passed
    assert cases[0][0].tolist() == [1, 2]
    assert torch.equal(torch.rand(1), expected)


# ---------------------------------------------------------------------------- the example


def test_a_word_that_comes_back_is_its_own_nearest_neighbour():
    vectors = torch.nn.functional.normalize(sixteen_tokens(), dim=-1)[0, 0]
    likeness = vectors @ vectors.T
    for i, word in enumerate(WORDS):
        if WORDS.count(word) > 1:
            likeness[i, i] = -1
            assert WORDS[likeness[i].argmax()] == word


def test_the_sixteen_tokens_are_the_same_each_time():
    torch.manual_seed(1)
    first = sixteen_tokens()
    torch.manual_seed(2)
    assert torch.equal(first, sixteen_tokens())
    assert first.shape == (1, 1, len(WORDS), 8)


# ------------------------------------------------------------ sentences for known troubles


@pytest.fixture
def notebook():
    """Return a function that runs a cell in a shell which has begun a lesson, and what it says."""
    shell = InteractiveShell.instance()
    shell.run_cell("from reformer_viz import lessons\nlessons.begin()")

    def run(cell: str) -> tuple[bool, str]:
        with capture_output() as said:
            result = shell.run_cell(cell)
        return result.success, said.stdout + said.stderr

    yield run
    InteractiveShell.clear_instance()


def test_a_cell_before_its_time_names_what_is_missing_and_stops_run_all(notebook):
    worked, said = notebook("model.trace(1)")
    assert not worked
    assert said.startswith("'model' is not there yet (line 1, `model.trace(1)`): this cell needs")
    assert "Traceback" not in said


def test_a_misspelt_name_is_asked_about_with_its_line(notebook):
    worked, said = notebook("def greet():\n    a = 1\n    pritn(a)\n\ngreet()")
    assert not worked
    assert "'pritn' is not there yet (line 3 of greet, `pritn(a)`)" in said
    assert "or is its name misspelt?" in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("MemoryError()", "This machine has not enough free memory"),
        ("RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried')", "smaller"),
        ("OSError('<urlopen error [Errno -2] Name or service not known>')", "`TextBytes()` reads"),
    ],
)
def test_a_known_trouble_gets_a_way_out(notebook, error, words):
    worked, said = notebook(f"raise {error}")
    assert not worked
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("error", ["RuntimeError('shapes')", "OSError('disk')", "ValueError('n')"])
def test_every_other_error_keeps_its_traceback(notebook, error):
    worked, said = notebook(f"raise {error}")
    assert not worked
    assert "Traceback" in said
    assert error.partition("(")[0] in said


def test_a_cell_after_its_time_works_as_ever(notebook):
    notebook("nothing.here")
    assert notebook("1 + 1")[0]
