"""One file per detector: its record (`SPEC`) and its torch module."""
