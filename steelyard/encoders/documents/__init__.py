"""Document encoders: the heavy arm, used offline."""
