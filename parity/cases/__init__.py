"""The cases of make_fixtures.py, one function each."""
