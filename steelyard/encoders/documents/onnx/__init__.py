"""Document encoders in ONNX form: run by onnxruntime, exported from torch or by optimum."""
