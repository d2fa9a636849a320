"""The commands, one file each; `jepa_lab.cli` puts them together."""
