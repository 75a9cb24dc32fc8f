"""Many trainings and their evaluations: a grid of settings, done anywhere, once each."""
