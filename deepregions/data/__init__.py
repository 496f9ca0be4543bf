"""Which file is real, fake, and whose; prepared faces; and batches of them for training."""
