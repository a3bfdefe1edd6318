"""Looking inside a model and changing what happens there: traces, attribution, patching, steering, embeddings."""
