"""TinyM2Net's experiment, and its figures beside the published ones."""
