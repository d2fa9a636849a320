"""Label-free monitors of features, one a file, and the rule that judges a run collapsed."""
