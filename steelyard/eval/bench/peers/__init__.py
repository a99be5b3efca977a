"""What a user would pick instead of a query pack, each behind one small class."""
