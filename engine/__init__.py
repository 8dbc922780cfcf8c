"""The lean runtime: tables, decoding, geometry, backends, pipeline. Never torch or onnx."""
