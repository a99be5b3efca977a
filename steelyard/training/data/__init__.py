"""What a tower is trained on: pairs of a corpus itself, hard negatives, judged triples."""
