"""The accuracy-recovery report as one HTML file, from records alone."""
