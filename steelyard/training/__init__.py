"""Training document towers: the data, the losses, the loop."""
