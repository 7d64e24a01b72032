"""The correctness checks behind `vertebra check`: what must hold of a backbone before anything is built on it."""
