"""The bundle: manifest, signature, preprocessing, prompts, tokenizer and self-test of an exported encoder."""
