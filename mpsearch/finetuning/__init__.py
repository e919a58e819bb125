"""Training an assignment further: the trainable copy, its loss, checkpoints."""
