"""Build and load the library of compiled ops."""
