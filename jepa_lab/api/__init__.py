"""The functions that `import jepa_lab` gives, which the command line calls, too."""
