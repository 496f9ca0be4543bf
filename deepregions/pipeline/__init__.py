"""The whole way over one file: frames, faces, regions, scores, and what is shown of them."""
