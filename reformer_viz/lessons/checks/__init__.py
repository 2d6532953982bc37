"""The exercises of the lessons, a module for each: the right answer, and the usual wrong ones."""
