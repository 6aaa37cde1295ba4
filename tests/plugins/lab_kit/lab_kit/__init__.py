"""What one laboratory adds to Synicix."""
