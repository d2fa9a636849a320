"""Trials as tasks of a Ray cluster.

`driver` is a process of its own, the only one that imports Ray: Ray ends the process of a driver that has lost its
cluster, prints what it likes, and takes its signals. `link` is the sweep's end of the pipes to it. `command` is what a
Ray worker does for a trial.
"""
