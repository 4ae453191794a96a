"""From files to batches: sources, tokenizer, chat template, packing, splits, preference pairs."""
