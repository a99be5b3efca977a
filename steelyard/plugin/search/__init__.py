"""From an encoded query to an answer: what is asked of an index, in which order, and by when."""
