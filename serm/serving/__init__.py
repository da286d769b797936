"""What leaves the workshop: the HTTP endpoint, score files, exported models."""
