"""Data: data sets, augmentations, splits and loaders."""
