"""Score-level fusion: from the (detector x region) matrix of log-odds to one number per face."""
