"""What the notebooks need beside the package: the running example, and exercises that answer."""

from reformer_viz.lessons.begin import begin
from reformer_viz.lessons.example import WORDS, sixteen_tokens
from reformer_viz.lessons.exercise import Exercise, Mistake, Verdict

__all__ = ["WORDS", "Exercise", "Mistake", "Verdict", "begin", "sixteen_tokens"]
