"""From text to vectors: query packs, document encoders, look-up distillation."""
