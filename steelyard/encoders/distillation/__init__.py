"""Look-up distillation: a query table learned for a frozen embedding model."""
