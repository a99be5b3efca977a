"""The query side: a tokenizer and a table. numpy, scipy, tokenizers, safetensors only."""
