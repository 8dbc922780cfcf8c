"""From a checkpoint to a bundle: torch module, ONNX graph, compiled plan."""
