"""Noise on weights: one object for the trainer and the evaluator."""
