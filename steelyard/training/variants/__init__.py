"""What LightRetriever's ablations change of the towers, one change a file."""
