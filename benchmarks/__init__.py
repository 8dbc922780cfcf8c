"""Measurements: the tables of the README come from the scripts in this folder."""
