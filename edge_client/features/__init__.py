"""The frozen encoder, and the embeddings that it gave: computed once, kept in the feature store."""
