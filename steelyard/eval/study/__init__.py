"""Look-up distillation as a study: variants of the recipe, on queries to choose by."""
