"""Finding faces, their 68 landmarks, who is who through a video, and the regions of a face."""
