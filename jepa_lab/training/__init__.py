"""Pretraining: the loop, schedules, optimizer, checkpoints, monitors, devices."""
