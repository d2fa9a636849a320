"""jepa-lab: an ablation lab for I-JEPA pretraining."""

__version__ = "0.1.0"
