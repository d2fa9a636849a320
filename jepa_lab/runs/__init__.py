"""The local run folder, which is the truth about a run."""
