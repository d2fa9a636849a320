"""Folders of images as users have them: which files are training, test and validation images, and their labels."""
