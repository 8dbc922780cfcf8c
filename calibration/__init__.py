"""Calibration image sets, activation ranges, INT8 placement, the precision gate, the decision."""
