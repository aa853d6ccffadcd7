"""One script per claim; each prints its method and figures, and ends with exit code 0 only if its aims hold."""
