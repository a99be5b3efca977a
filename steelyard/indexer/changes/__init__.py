"""Live changes: a sequenced log, and what it makes of a generation."""
