"""Train, test and predict: the loops, and what a run needs around them."""
