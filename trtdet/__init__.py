"""trtdet: synthetic-image detectors, from a paper's checkpoint to an engine that scores images."""

__version__ = "0.1.0"
