"""Files to validated documents."""
