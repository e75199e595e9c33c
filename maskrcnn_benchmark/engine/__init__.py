"""Train, test and predict: the loops, process setup, checkpoints, logs and output files."""
