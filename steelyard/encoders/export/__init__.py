"""A pack's query side in other libraries' formats."""
