"""Documents to shards: Parquet files of texts and vectors, with a journal."""
