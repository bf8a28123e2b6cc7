"""ONNX files: made from a run, quantised to int8, and run by onnxruntime."""
