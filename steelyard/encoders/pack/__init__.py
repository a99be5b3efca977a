"""The query pack on disk, format 1."""
