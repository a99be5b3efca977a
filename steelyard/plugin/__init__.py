"""From vectors to search engines and back: arms, fusion, feedback, the searcher."""
