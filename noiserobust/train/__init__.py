"""Training for a noise: perturbative methods, an optimizer for any loop, and a trainer."""
