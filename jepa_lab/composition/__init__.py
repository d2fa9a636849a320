"""The composition root, the one place that knows how the parts fit together: configuration -> objects -> run folder
-> result."""
