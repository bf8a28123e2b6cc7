"""A trained detector as a SavedModel or an ONNX file."""
