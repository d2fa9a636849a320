"""Configuration: schemas, YAML loading with file and line, overrides, presets."""
